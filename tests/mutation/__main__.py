"""`python -m tests.mutation`: each bug is planted in turn; status 1 if one is not caught, or hangs."""

import argparse
import sys
from collections import Counter
from multiprocessing.pool import ThreadPool

from tests.mutation.runner import CAUGHT, planted, try_out


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name holds this")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    arguments = parser.parse_args()
    mutants = [mutant for mutant in planted() if arguments.only in mutant.name]
    counts: Counter[str] = Counter()
    good = True
    with ThreadPool(arguments.jobs) as pool:
        for verdict in pool.imap(try_out, mutants):
            counts[verdict.how] += 1
            good &= verdict.is_good
            print(f"{counts.total()}/{len(mutants)} {verdict}", flush=True)
    print(
        f"planted bugs: {len(mutants)}; caught {sum(counts[how] for how in CAUGHT)}"
        f" ({counts['simulation']} by the simulation, {counts['test']} by a named test),"
        f" {counts['argued']} that nobody can see, {counts['hangs']} hanging, not caught {counts['']}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
