"""The benchmark: python -m tests.bench.main [--quick]; README.md says how to read what it prints."""

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import machine, reads, scale
from tests.bench.contenders import CONTENDERS
from tests.bench.load import Load
from tests.bench.report import picture, text_of
from tests.bench.results import Results
from tests.bench.targets import judged

CORE = ("perstack", "direct", "direct-timed", "direct-sync")
LIMITS = ("limit-sync", "limit-echo")
SETTINGS = ("perstack-no-files",)
CLIENTS = ("perstack-asyncio", "perstack-node")
STORES = ("sqlite", "redis", "valkey", "postgres", "nats")
ALL = (*CORE, *SETTINGS, *CLIENTS, *STORES, *LIMITS)
PARTS = "abedfgco"
_COMMA = ",(?!000)"  # not that of "2,000/s"


def works(options: argparse.Namespace) -> dict[str, tuple[str, Load, tuple[str, ...]]]:
    """By name: the part, the load, the contenders."""
    s = options.seconds
    full = {
        "32 x 1": ("a", Load(32, 1, s), ALL),
        "8 x 64": ("b", Load(8, 64, s), (*ALL, "files")),
        "1 x 1": ("a", Load(1, 1, s), (*CORE, *CLIENTS)),
        "8 x 1": ("a", Load(8, 1, s), CORE),
        "128 x 1": ("a", Load(128, 1, s), CORE),
        "1 x 64": ("b", Load(1, 64, s), CORE),
        "32 x 64": ("b", Load(32, 64, s), CORE),
        "32 x 1 at 2,000/s": (
            "o",
            Load(32, 1, 2 * s, 62.5),
            ("perstack", "perstack-no-files", "direct-timed", *STORES),
        ),
        "sustained": ("d", Load(8, 64, options.sustained), ("perstack", "direct", "files", "files-2")),
    }
    if options.quick:
        return {work: full[work] for work in ("32 x 1", "8 x 64")}
    return full


def note(text: str) -> None:
    """Prints progress to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measure_works(
    root: Path,
    renew: Callable[[], None],
    results: Results,
    options: argparse.Namespace,
    chosen: list[str],
    wanted: str,
) -> None:
    """Rounds in turn; another contender begins each round. `renew` makes the root fresh for each."""
    for work, (part, load, names) in works(options).items():
        if part != wanted or (options.works and work not in re.split(_COMMA, options.works)):
            continue
        taking = [name for name in names if name in chosen]
        failed: set[str] = set()
        rounds = options.rounds
        if part == "d":
            rounds = options.sustained_rounds
        elif len(names) <= len(CORE) + len(CLIENTS):
            rounds = min(rounds, options.small_rounds)
        for n in range(rounds):
            if time.monotonic() > options.deadline:
                results.left_out.append(f"{work}: round {n + 1} and later ones, time was up")
                break
            renew()
            for name in [name for name in taking[:: 1 if n % 2 == 0 else -1] if name not in failed]:
                folder = root / f"{work.replace(' ', '').replace('/', '-')}-{n}-{name}"
                folder.mkdir()
                folder.chmod(0o755)
                try:
                    found = CONTENDERS[name].round(folder, load)
                except Exception as error:  # noqa: BLE001 - one that fails must not take the others' figures along
                    results.left_out.append(f"{work}: {name} failed in round {n + 1}: {error!r}")
                    note(results.left_out[-1])
                    failed.add(name)  # its rounds and the others' would be no pairs any more
                    continue
                results.add(work, load, name, found)
                note(f"{work} round {n + 1} {name}: {found.rate:,.0f}/s, p99 {found.latency(0.99):.2f} ms")


def parts_of(root: Path, results: Results, options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The parts that compare no contenders."""
    few = min(options.rounds, options.small_rounds)
    number = 1_000 if options.quick else 10_000
    return {
        "e": partial(
            reads.measure, root, results, rounds=options.rounds, number=number, seconds=options.seconds
        ),
        "c": partial(scale.replay, root, results, rounds=few),
        "g": partial(scale.first_start, root, results, rounds=options.rounds),
        "f": partial(
            scale.scale,
            root,
            results,
            sizes=options.sizes,
            rounds=options.rounds,
            seconds=options.seconds,
            files=not options.no_files,
        ),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="perstack-stored against what users would pick instead.")
    add = parser.add_argument
    add("--quick", action="store_true", help="about two minutes: fewer and shorter rounds, small bases")
    add("--rounds", type=int, help="paired rounds (5)")
    add("--small-rounds", type=int, default=5, help="rounds of work with few contenders, and of (c)")
    add("--seconds", type=float, help="of each round (5)")
    add("--sustained", type=float, default=60.0, help="seconds of (d)")
    add("--sustained-rounds", type=int, default=5)
    add("--sizes", default=None, help="events of (f), such as 10000,1000000,5000000")
    add("--no-files", action="store_true", help="the events of (f) get no files in the tree")
    add("--only", default=PARTS, help="parts in their order: letters of README.md's list")
    add("--minutes", type=float, default=240.0, help="no new round is begun after this time")
    add("--contenders", help="names, with commas")
    add("--works", help="such as '32 x 1,8 x 64,sustained'; default: all of the parts")
    add("--folder", help="where to write; default: beside this file")
    add("--image", help="as root: a file written beforehand, to make a fresh ext4 on and to mount")
    add("--out", default=str(Path(__file__).parent / "results"), help="folder for JSON, table and picture")
    options = parser.parse_args()
    options.only = options.only.replace(",", "")
    options.deadline = time.monotonic() + 60 * options.minutes
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.7 if options.quick else 5.0)
    sizes = options.sizes or ("10000" if options.quick else "10000,100000,1000000")
    options.sizes = [int(size) for size in sizes.split(",")]
    return options


def main() -> None:
    """Run, print and write, also after an interrupt."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = arguments()
    results = Results()
    chosen = []
    for name in options.contenders.split(",") if options.contenders else CONTENDERS:
        missing = CONTENDERS[name].missing()
        if missing is None:
            chosen.append(name)
        else:
            results.left_out.append(f"{name}: {missing}")
            note(f"left out: {name}: {missing}")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    with machine.place(options.folder, options.image) as (root, kind, renew):
        results.head = {
            **machine.described(root, kind),
            "rounds": f"{options.rounds} of {options.seconds} s; {options.small_rounds} where few take part; "
            f"sustained {options.sustained_rounds} of {options.sustained} s",
            "contenders": {
                name: (CONTENDERS[name].version(), CONTENDERS[name].sync_mode()) for name in chosen
            },
        }
        try:
            others = parts_of(root, results, options)
            for part in options.only:
                note(f"part {part}")
                if part not in others:
                    measure_works(root, renew, results, options, chosen, part)
                elif time.monotonic() > options.deadline:
                    results.left_out.append(f"part {part}: time was up")
                else:
                    others[part]()
        finally:
            targets = judged(results)
            text = text_of(results, targets)
            results.write(out / "bench.json", [t.asdict() for t in targets])
            (out / "bench.svg").write_text(picture(results))
            (out / "bench.md").write_text(text)
            print(text)


if __name__ == "__main__":
    main()
