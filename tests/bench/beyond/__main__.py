"""The benchmark of the replicated journal and of the mirror: python -m tests.bench.beyond [--quick].

It needs nats-server, moto and obstore of the project's environment, and uses SeaweedFS where it is.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import machine
from tests.bench.contenders.base import output
from tests.bench.main import note

from . import joining, mirrored, outages, speed
from .report import Figures
from .world import Plan

PARTS: dict[str, tuple[Callable[[Path, Figures, Plan], None], float]] = {
    "speed": (speed.measure, 0.3),
    "outages": (outages.measure, 0.3),
    "joining": (joining.measure, 0.3),
    "mirror": (mirrored.measure, 0.1),
}
"""Each part, and the share of the time after which it begins no round any more."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The replicated journal and the mirror, in figures.")
    add = parser.add_argument
    add("--quick", action="store_true", help="about two minutes: few short rounds, 20,000 records")
    add("--minutes", type=float, help="no round begins after these (13; 2 with --quick)")
    add("--rounds", type=int, help="of each mode (5)")
    add("--seconds", type=float, help="of each round (4)")
    add("--faults", type=int, help="of each kind (5)")
    add("--records", type=int, help="that a new node lacks (1,000,000)")
    add("--joins", type=int, help="of a new node in each way (2)")
    add("--only", default=",".join(PARTS), help="parts, with commas")
    add("--folder", help="where to write; default: beside the benchmark")
    add("--out", default=str(Path(__file__).parents[1] / "results"), help="folder for JSON and table")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def plan_of(options: argparse.Namespace, minutes: float) -> Plan:
    """The plan of one part, which may take some minutes."""
    few = options.quick
    return Plan(
        rounds=options.rounds or (2 if few else 5),
        seconds=options.seconds or (1.0 if few else 4.0),
        faults=options.faults or (1 if few else 5),
        records=options.records or (20_000 if few else 1_000_000),
        joins=options.joins or (1 if few else 2),
        until=time.monotonic() + 60 * minutes,
    )


def main() -> int:
    """Measure, print and write, also after an interrupt. Status 1: a part failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = arguments()
    minutes = options.minutes or (2.0 if options.quick else 13.0)
    figures, failed = Figures(), False
    names = [name for name in PARTS if name in options.only.split(",")]
    whole = sum(PARTS[name][1] for name in names)
    with machine.place(options.folder, None) as (root, kind, _):
        figures.head = machine.described(root, kind)
        figures.head["NATS"] = output(str(Path(sys.executable).parent / "nats-server"), "--version")
        try:
            for name in names:
                note(f"part {name}")
                measure, share = PARTS[name]
                try:
                    measure(root / name, figures, plan_of(options, minutes * share / whole))
                except Exception as error:  # noqa: BLE001 - the other parts have figures of their own
                    failed = True
                    figures.left_out.append(f"{name} failed: {error!r}")
                    note(figures.left_out[-1])
        finally:
            figures.write(Path(options.out))
            print(figures.text())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
