"""The program, built with sanitizers, and a daemon for each test."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.c.program import SANITIZERS, SOURCES, needs
from tests.helpers.daemon import RunningDaemon, running_daemon


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example program, which is all of the client."""
    missing = needs()
    if missing is not None:
        assert "CI" not in os.environ, f"{missing} must be installed"
        pytest.skip(f"needs {missing}: apt-get install gcc make libzmq3-dev")
    build = tmp_path_factory.mktemp("c")
    made = subprocess.run(
        ["make", "-C", str(SOURCES), f"BUILD={build}", f"CFLAGS={SANITIZERS}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return str(build / "example")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base", "--answer-bytes", "65536") as running:
        yield running
