"""The simulation from the command line: `python -m tests.simulation run --seeds 100`, `… replay SEED`."""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pool

from tests.simulation.campaign import Counts, FoundError, Plan, run


def _try(job: tuple[int, Plan]) -> Counts | str:
    seed, plan = job
    try:
        return run(seed, plan)
    except FoundError as error:
        return str(error)


@contextmanager
def _results(plan: Plan, seeds: range, jobs: int) -> Iterator[Iterator[Counts | str]]:
    """What comes of each seed; those under way at the end are given up, and leave no folder."""
    tries = ((seed, plan) for seed in seeds)
    if jobs == 1:
        yield map(_try, tries)
        return
    with Pool(jobs, signal.signal, (signal.SIGTERM, lambda *_: sys.exit())) as pool:
        yield pool.imap_unordered(_try, tries)


def _run(arguments: argparse.Namespace) -> int:
    plan = Plan(arguments.requests, arguments.sample, arguments.nested, arguments.fault_odds)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    total = Counts()
    found = []
    started = told = time.monotonic()
    with _results(plan, seeds, arguments.jobs) as results:
        for result in results:
            if isinstance(result, str):
                found.append(result)
                print(result, flush=True)
                if arguments.until_found:
                    return 1
            else:
                total.add(result)
            now = time.monotonic()
            if now - told > 10 or total.seeds + len(found) == len(seeds):
                told = now
                print(f"{now - started:.0f} s: {total}; broken promises: {len(found)}", flush=True)
            if arguments.seconds and now - started > arguments.seconds:
                print("the time is up", flush=True)
                break
    print(f"simulation: {total}; broken promises: {len(found)}")
    return 1 if found else 0


def _replay(arguments: argparse.Namespace) -> int:
    plan = Plan(arguments.requests, 1.0, arguments.nested, arguments.fault_odds, arguments.at)
    print(run(arguments.seed, plan))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="try many seeds")
    running.add_argument("--first", type=int, default=1, help="the first seed")
    running.add_argument("--seeds", type=int, default=20, help="how many")
    running.add_argument("--sample", type=float, default=1.0, help="share of the calls at which to crash")
    running.add_argument("--jobs", type=int, default=2, help="processes")
    running.add_argument("--seconds", type=float, default=0, help="stop after so long, whatever is left")
    running.add_argument("--until-found", action="store_true", help="stop at the first broken promise")
    running.set_defaults(call=_run)
    replaying = commands.add_parser("replay", help="see again what was found")
    replaying.add_argument("seed", type=int)
    replaying.add_argument("--at", default="", help="the place of the crash, as it was printed")
    replaying.set_defaults(call=_replay)
    for command in (running, replaying):
        command.add_argument("--requests", type=int, default=Plan().requests)
        command.add_argument("--nested", type=float, default=Plan().nested)
        command.add_argument("--fault-odds", type=float, default=Plan().fault_odds)
    arguments = parser.parse_args()
    status: int = arguments.call(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
