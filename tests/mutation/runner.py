"""Runs the simulation, or a named test, on a daemon with one bug, and reports whether it noticed.

A test that hangs has not noticed: either the daemon or the harness may stand still. Such a bug needs a test
that fails.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutation.bugs import bugs
from tests.mutation.seeds import SEEDS
from tests.mutation.sites import PACKAGE, Mutant, sites
from tests.mutation.verdicts import ARGUED, TESTS, TESTS_OF_FILE

REPOSITORY = Path(__file__).parents[2]
HISTORIES = 60
"""Short ones, from the first seed on: what is caught does not depend on the machine's speed."""
_THOROUGH = 8
"""Histories crashed at more of their calls: some bugs show between two calls of a history only."""
_BEFORE = 1
"""How many of these come first, as most bugs show there."""
_FEW = 4
"""Histories for a bug that nobody can see: the argument is what counts."""
_MANY_CALLS, _SOME_CALLS, _FEW_CALLS = 0.3, 0.08, 0.01
"""Shares of the calls at which a history is crashed."""
_SECONDS_MAX = 900
"""For one process. A busy machine is no hang: no process needs more than two minutes of a quiet one."""
_END_SECONDS = 10


class Verdict(NamedTuple):
    """The test that noticed a planted bug.

    `how` is one of CAUGHT, "argued", "hangs" or "broken" (a process of the harness ended as it never should);
    "" if no test noticed.
    """

    name: str
    how: str
    reason: str
    seconds: float = 0

    def __str__(self) -> str:
        return f"{self.how or 'NOT CAUGHT':<11} {self.seconds:4.0f} s {self.name}: {self.reason}"

    @property
    def is_good(self) -> bool:
        """Whether it was caught, or nobody can."""
        return self.how in {*CAUGHT, "argued"}


CAUGHT = ("simulation", "test")


class Search(NamedTuple):
    """Histories for one process: the first seed, how many, and the share of their calls to crash at."""

    first: int
    histories: int
    sample: float


class _BrokenError(Exception):
    """A process ended with a status that says neither that a promise is broken nor that all are kept."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        super().__init__(f"exit status {done.returncode}: {said[:160]}")


def planted() -> list[Mutant]:
    """All daemons with a bug."""
    return [*sites(), *bugs()]


def named_tests(mutant: Mutant) -> tuple[str, ...]:
    """Arguments of pytest: the tests that must notice a bug. None: the simulation must."""
    return TESTS.get(mutant.name) or TESTS_OF_FILE.get(mutant.file) or ()


def try_out(mutant: Mutant, *, first: int = 1) -> Verdict:
    """See who notices a planted bug; the histories begin with a seed."""
    began = time.monotonic()
    verdict = _verdict(mutant, first)
    return verdict._replace(seconds=round(time.monotonic() - began, 1))


def _verdict(mutant: Mutant, first: int) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        package = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / mutant.file).write_text(mutant.source)
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
        try:
            return _try_out(mutant, environment, first)
        except subprocess.TimeoutExpired as over:
            return Verdict(
                mutant.name, "hangs", f"no end after {over.timeout:.0f} s: {' '.join(over.cmd[1:])}"
            )
        except _BrokenError as error:
            return Verdict(mutant.name, "broken", str(error))


def _try_out(mutant: Mutant, environment: dict[str, str], first: int) -> Verdict:
    if tests := named_tests(mutant):
        return _by_tests(mutant, tests, environment)
    for search in searches(mutant, first):
        if found := _by_simulation(environment, search):
            return Verdict(mutant.name, "simulation", found)
    if mutant.name in ARGUED:
        return Verdict(mutant.name, "argued", ARGUED[mutant.name])
    return Verdict(mutant.name, "", f"{HISTORIES} histories went well")


def searches(mutant: Mutant, first: int) -> Iterator[Search]:
    """Where the simulation looks for a bug, in turn, until it breaks a promise."""
    if mutant.name in ARGUED:
        yield Search(first, _FEW, _SOME_CALLS)
        return
    if mutant.name in SEEDS:
        yield Search(SEEDS[mutant.name], 1, _FEW_CALLS)
        yield Search(SEEDS[mutant.name], 1, _MANY_CALLS)
    yield Search(first, _BEFORE, _MANY_CALLS)
    yield from (Search(first + done, 20, _FEW_CALLS) for done in range(0, HISTORIES, 20))
    yield from (Search(first + done, 1, _MANY_CALLS) for done in range(_BEFORE, _THOROUGH))
    yield from (Search(first + done, 10, _SOME_CALLS) for done in range(0, HISTORIES, 10))


def _by_simulation(environment: dict[str, str], search: Search) -> str:
    command = [sys.executable, "-m", "tests.simulation", "run", "--until-found"]
    command += ["--first", str(search.first), "--seeds", str(search.histories)]
    command += ["--requests", "12", "--sample", str(search.sample), "--nested", "0.001", "--jobs", "1"]
    done = _run(command, environment)
    found = re.search(r"^(seed \d+, crash at .*)$", done.stdout, re.MULTILINE)
    if done.returncode != (1 if found else 0):
        raise _BrokenError(done)
    return found.group(1)[:160] if found else ""


def _by_tests(mutant: Mutant, tests: tuple[str, ...], environment: dict[str, str]) -> Verdict:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = _run(command, environment)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |\[|$)", done.stdout, re.MULTILINE)
    if done.returncode != (1 if failed else 0):
        raise _BrokenError(done)
    if failed is None:
        if mutant.name in ARGUED:
            return Verdict(mutant.name, "argued", ARGUED[mutant.name])
        return Verdict(mutant.name, "", f"{' '.join(tests)} passed")
    return Verdict(mutant.name, "test", failed.group(1))


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen(
        command,
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.communicate(timeout=_SECONDS_MAX)
        except BaseException:
            process.send_signal(signal.SIGINT)  # it ends what it has started, and takes its folders away
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *said)
