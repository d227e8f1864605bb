"""A long campaign in parts, each on a base of its own: with a file of results, a run that ended goes on."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.crash.progress import Figures, add

NOT_ALL = 3
"""Exit status: nothing was found, and the time was up before all was done."""

Part = Callable[[int, int, Path], Figures]
"""Plays a part: how many rounds, a seed, an empty folder. It raises if a promise is broken."""


class Plan(NamedTuple):
    """What a run plays.

    Attributes:
        name: of the campaign.
        rounds: in all.
        a_part: rounds of a part; one that was cut off begins again.
        seed: of the first part.
        minutes: no part begins after these.
        results: a file for what was done; a line of JSON for each part.
    """

    name: str
    rounds: int
    a_part: int
    seed: int
    minutes: float
    results: Path | None


def play(plan: Plan, part: Part) -> int:
    """Play the parts that are left; returns the exit status.

    Raises:
        AssertionError: a promise is broken; the part counts as not done.
    """
    deadline = time.monotonic() + 60 * plan.minutes
    done = {} if plan.results is None else _done(plan.results)
    total: Figures = {}
    played = 0
    for first in range(0, plan.rounds, plan.a_part):
        count, seed = min(plan.a_part, plan.rounds - first), plan.seed + first // plan.a_part
        key = f"{plan.name}, seed {seed}, {count} rounds"
        if key not in done:
            if time.monotonic() >= deadline:
                continue
            folder = Path(tempfile.mkdtemp(prefix=f"{plan.name}-"))
            try:
                done[key] = part(count, seed, folder)
            except BaseException:
                sys.stderr.write(f"{key}: failed; what it left is in {folder}\n")
                raise
            shutil.rmtree(folder)
            _say(key, done[key])
            if plan.results is not None:
                with plan.results.open("a") as file:
                    file.write(json.dumps({"part": key, "figures": done[key]}) + "\n")
        add(total, done[key])
        played += count
    _say(f"{plan.name}, {played} of {plan.rounds} rounds", total)
    return 0 if played == plan.rounds else NOT_ALL


def plan_from(arguments: list[str], name: str, rounds: int, a_part: int) -> Plan:
    """A plan by the command line; the defaults are given."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.crash.{name}")
    parser.add_argument("--rounds", type=int, default=rounds, help="in all")
    parser.add_argument("--seed", type=int, default=1, help="of the first part")
    parser.add_argument("--minutes", type=float, default=50, help="no part begins after these; status 3 then")
    parser.add_argument("--results", type=Path, help="a file; parts that it has are not played again")
    found = parser.parse_args(arguments)
    return Plan(name, found.rounds, min(a_part, found.rounds), found.seed, found.minutes, found.results)


def _done(path: Path) -> dict[str, Figures]:
    path.touch()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    os.truncate(path, len(whole))  # a line that a kill cut off: its part is played again
    lines = (json.loads(line) for line in whole.splitlines())
    return {line["part"]: line["figures"] for line in lines}


def _say(what: str, figures: Figures) -> None:
    text = ", ".join(f"{name} {figure:g}" for name, figure in figures.items())
    sys.stdout.write(f"{what}: {text}\n")
    sys.stdout.flush()
