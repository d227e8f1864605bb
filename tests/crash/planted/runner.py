"""Runs the simulation, or a named test, on a daemon with one bug, and tells whether it noticed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from .bugs import bugs
from .sites import PACKAGE, Mutant, sites
from .verdicts import ARGUED, TESTS, TESTS_OF_FILE

REPOSITORY = Path(__file__).parents[3]
HISTORIES = 60
"""Short ones, from the first seed on: what is caught does not depend on the machine's speed."""
_THOROUGH = 8
"""So many are crashed at more of their calls before: some bugs show between two calls of a history only."""
_SECONDS_MAX = 900


class Verdict(NamedTuple):
    """Who noticed a planted bug: `how` is "simulation", "test" or "argued"; "" if nobody did."""

    name: str
    how: str
    reason: str

    def __str__(self) -> str:
        return f"{self.how or 'NOT CAUGHT':<11} {self.name}: {self.reason}"


def planted() -> list[Mutant]:
    """All daemons with a bug."""
    return [*sites(), *bugs()]


def try_out(mutant: Mutant, *, histories: int = HISTORIES) -> Verdict:
    """See who notices a planted bug."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        package = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / mutant.file).write_text(mutant.source)
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
        tests = TESTS.get(mutant.name) or TESTS_OF_FILE.get(mutant.file)
        if tests is not None:
            return _by_tests(mutant, tests, environment)
        found = _by_simulation(environment, min(_THOROUGH, histories), sample=0.3)
        found = found or _by_simulation(environment, histories, sample=0.08)
    if found:
        return Verdict(mutant.name, "simulation", found)
    if mutant.name in ARGUED:
        return Verdict(mutant.name, "argued", ARGUED[mutant.name])
    return Verdict(mutant.name, "", f"{histories} histories went well")


def _by_simulation(environment: dict[str, str], histories: int, *, sample: float) -> str:
    command = [sys.executable, "-m", "tests.crash.sim", "run", "--until-found", "--seeds", str(histories)]
    command += ["--requests", "12", "--sample", str(sample), "--nested", "0.001", "--jobs", "1"]
    try:
        done = _run(command, environment)
    except subprocess.TimeoutExpired:
        return "it hangs"
    broken = re.search(r"^(seed \d+, crash at .*)$", done.stdout, re.MULTILINE)
    assert done.returncode in {0, 1}, done.stderr
    assert bool(broken) == bool(done.returncode), done.stderr
    return broken.group(1)[:160] if broken else ""


def _by_tests(mutant: Mutant, tests: tuple[str, ...], environment: dict[str, str]) -> Verdict:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = _run(command, environment)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    assert done.returncode in {0, 1}, f"{done.stdout}\n{done.stderr}"
    if failed is None:
        if mutant.name in ARGUED:
            return Verdict(mutant.name, "argued", ARGUED[mutant.name])
        return Verdict(mutant.name, "", f"{' '.join(tests)} passed")
    return Verdict(mutant.name, "test", failed.group(1))


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
    )
