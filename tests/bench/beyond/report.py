"""The figures of a run, its targets, one table, and JSON."""

import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.figures import short
from tests.bench.results import none_of


class Target(NamedTuple):
    """What a figure has to reach.

    Attributes:
        part, name: of the figure.
        sign: "<=" or ">=".
        bound: of the worst value if `is_of_worst`, else of the median.
    """

    part: str
    name: str
    sign: str
    bound: float
    is_of_worst: bool = False


TARGETS = (
    Target("8 x 64", "replicated, events/s", ">=", 15_000),
    Target("1 x 1", "replicated, p50 ms", "<=", 5),
    Target("1 x 1", "replicated, p99 ms", "<=", 25),
    Target("reads", "strict p50 less local mode's, ms", "<=", 4),
    Target("without an ack", "leader killed, s", "<=", 10, is_of_worst=True),
    Target("without an ack", "leader stopped in order, s", "<=", 1, is_of_worst=True),
    Target("without an ack", "follower killed, s", "<=", 0.5, is_of_worst=True),
    Target("new node", "from a backup, s", "<=", 60, is_of_worst=True),
    Target("new node", "from a mirror, s", "<=", 60, is_of_worst=True),
    Target("mirror", "lag at 2,000 events/s, s", "<=", 2, is_of_worst=True),
    Target("mirror", "p99 beside it against without", "<=", 1.3),
)
_OF = {(target.part, target.name): target for target in TARGETS}


class Figures:
    """Values by part and name, in the order in which they came.

    Attributes:
        head: the machine and the versions.
        left_out: sentences: what was not measured, or was wrong.
    """

    def __init__(self) -> None:
        self.head: dict[str, str] = {}
        self.values: dict[tuple[str, str], list[float]] = {}
        self.left_out: list[str] = []

    def add(self, part: str, name: str, value: float) -> None:
        """Take a value of one round."""
        self.values.setdefault((part, name), []).append(value)

    def rows(self) -> list[dict[str, Any]]:
        """Each figure with its target, part by part; targets without a value are not met."""
        found = []
        keys = [*self.values, *(key for key in _OF if key not in self.values)]
        parts = list(dict.fromkeys(part for part, _ in keys))
        for key in sorted(keys, key=lambda key: parts.index(key[0])):
            values, target = self.values.get(key, []), _OF.get(key)
            largest_is_worst = "events/s" not in key[1] if target is None else target.sign == "<="
            row: dict[str, Any] = {
                "part": key[0],
                "name": key[1],
                "median": statistics.median(values) if values else math.nan,
                "worst": (max if largest_is_worst else min)(values, default=math.nan),
                "values": [round(value, 4) for value in values],
            }
            if target is not None:
                judged = row["worst"] if target.is_of_worst else row["median"]
                row["wanted"] = f"{target.sign} {target.bound:,g}"
                row["met"] = judged <= target.bound if largest_is_worst else judged >= target.bound
            found.append(row)
        return found

    def text(self) -> str:
        """One table, as Markdown."""
        lines = [*(f"- {key}: {value}" for key, value in self.head.items()), ""]
        lines += ["| | figure | median | worst | rounds | wanted | |", "|---|---|---|---|---|---|---|"]
        for row in self.rows():
            cells = [row["part"], row["name"], short(row["median"]), short(row["worst"])]
            met = "" if "met" not in row else "met" if row["met"] else "**missed**"
            cells += [str(len(row["values"])), row.get("wanted", ""), met]
            lines.append(f"| {' | '.join(cells)} |")
        if self.left_out:
            lines += ["", "Left out, or wrong:", "", *(f"- {line}" for line in self.left_out)]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write `beyond.json` and `beyond.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {key: none_of(value) if isinstance(value, float) else value for key, value in row.items()}
            for row in self.rows()
        ]
        found = {"head": self.head, "leftOut": self.left_out, "figures": rows}
        (folder / "beyond.json").write_text(json.dumps(found, indent=1) + "\n")
        (folder / "beyond.md").write_text(self.text())
