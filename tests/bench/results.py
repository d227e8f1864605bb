"""All measured figures, and the JSON file that holds them."""

import json
import math
from pathlib import Path
from typing import Any

from tests.bench.load import Load, Round


class Results:
    """The rounds by work and contender, and the figures of the other parts.

    Attributes:
        head: the machine and the versions.
        rounds: by name of the work, then by contender.
        samples: values of the rounds of other parts, by part, then by name.
        left_out: sentences.
    """

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.loads: dict[str, Load] = {}
        self.rounds: dict[str, dict[str, list[Round]]] = {}
        self.samples: dict[str, dict[str, list[float]]] = {}
        self.left_out: list[str] = []

    def add(self, work: str, load: Load, contender: str, found: Round) -> None:
        """Takes a round; the events stored must be those acknowledged."""
        if found.audited != found.stored:
            self.left_out.append(f"{work}, {contender}: {found.stored} acknowledged, {found.audited} stored")
        self.loads[work] = load
        self.rounds.setdefault(work, {}).setdefault(contender, []).append(found)

    def sample(self, part: str, name: str, value: float) -> None:
        """Takes a value of one round of another part."""
        self.samples.setdefault(part, {}).setdefault(name, []).append(value)

    def of(self, work: str, contender: str, figure: str) -> list[float]:
        """The figure of each round: rate, complete, or a quantile such as p99."""
        found = self.rounds.get(work, {}).get(contender, [])
        if figure == "rate":
            return [r.rate for r in found]
        if figure == "complete":
            return [r.complete_rate for r in found]
        return [r.latency(float("0." + figure.removeprefix("p").replace(".", ""))) for r in found]

    def write(self, path: Path, targets: list[dict[str, Any]]) -> None:
        """Writes all of it; latencies in µs, at most `keep` of each round."""
        keep = 200
        rounds = [
            {
                "work": work,
                "load": self.loads[work]._asdict(),
                "contender": contender,
                "rounds": [
                    {
                        "count": r.stored,
                        "audited": r.audited,
                        "rate": round(r.rate, 1),
                        "completeRate": round(r.complete_rate, 1),
                        "p50ms": none_of(r.latency(0.5)),
                        "p99ms": none_of(r.latency(0.99)),
                        "p999ms": none_of(r.latency(0.999)),
                        "latenciesUs": [round(1000 * v) for v in r.latencies_ms[:keep]],
                    }
                    for r in found
                ],
            }
            for work, by_contender in self.rounds.items()
            for contender, found in by_contender.items()
        ]
        text = json.dumps(
            {
                "head": self.head,
                "targets": targets,
                "leftOut": self.left_out,
                "samples": self.samples,
                "rounds": rounds,
            },
            separators=(",", ":"),
        )
        path.write_text(text.replace('{"work"', '\n{"work"').replace(',"targets"', ',\n"targets"') + "\n")


def none_of(value: float) -> float | None:
    """Rounded; JSON knows no NaN."""
    return None if math.isnan(value) else round(value, 4)
