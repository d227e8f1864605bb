"""`python -m tests.mutation`: each bug is planted in turn; status 1 if one is not caught, or hangs."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tests.mutation.results import Results
from tests.mutation.runner import CAUGHT, Verdict, named_tests, planted, try_out


def main() -> int:
    """Plant the bugs, those with named tests first: they take less time."""
    arguments = _arguments()
    began = time.monotonic()
    mutants = [mutant for mutant in planted() if arguments.only in mutant.name]
    mutants.sort(key=lambda mutant: not named_tests(mutant))
    results = Results(arguments.results) if arguments.results else None
    known = results.known if results else {}
    verdicts = [known[mutant.name] for mutant in mutants if mutant.name in known]
    verdicts = [verdict for verdict in verdicts if verdict.is_good]
    done = {verdict.name for verdict in verdicts}
    left = [mutant for mutant in mutants if mutant.name not in done]
    with ThreadPool(arguments.jobs) as pool:
        for verdict in pool.imap(try_out, left):
            verdicts.append(verdict)
            if results:
                results.add(verdict)
            print(f"{len(verdicts)}/{len(mutants)} {verdict}", flush=True)
    print(f"{_summary(verdicts)}; {time.monotonic() - began:.0f} s")
    return 0 if all(verdict.is_good for verdict in verdicts) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name holds this")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument(
        "--results", type=Path, help="a file for the verdicts; bugs that it calls caught are passed over"
    )
    return parser.parse_args()


def _summary(verdicts: Iterable[Verdict]) -> str:
    counts = Counter(verdict.how for verdict in verdicts)
    return (
        f"planted bugs: {counts.total()}; caught {sum(counts[how] for how in CAUGHT)}"
        f" ({counts['simulation']} by the simulation, {counts['test']} by a named test),"
        f" {counts['argued']} that nobody can see, {counts['hangs']} hanging, {counts['broken']} broken,"
        f" not caught {counts['']}"
    )


if __name__ == "__main__":
    sys.exit(main())
