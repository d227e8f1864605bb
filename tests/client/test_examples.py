"""The examples of each client run against a daemon, and do what they say. That of C: `c/test_c.py`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.behaviour import node
from tests.helpers.daemon import RunningDaemon, running_daemon

CLIENTS = Path(__file__).parents[2] / "client"
PYTHON, TYPESCRIPT = CLIENTS / "python" / "examples", CLIENTS / "typescript" / "examples"
SECONDS = 60
EVENTS = 1_000


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base") as running:
        yield running


@pytest.mark.parametrize(
    ("interpreter", "examples", "suffix"),
    [
        pytest.param(sys.executable, PYTHON, ".py", id="python"),
        pytest.param("node", TYPESCRIPT, ".mjs", id="typescript"),
    ],
)
def test_the_examples_do_what_they_say(
    interpreter: str, examples: Path, suffix: str, daemon: RunningDaemon, tmp_path: Path
) -> None:
    if interpreter == "node" and (what := node.missing()) is not None:
        assert "CI" not in os.environ, f"{what} must be there"
        pytest.skip(f"needs {what}: see client/typescript/README.md")

    def run(name: str, *arguments: str) -> list[str]:
        done = subprocess.run(
            [interpreter, str(examples / f"{name}{suffix}"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PERSTACK_STORED_ENDPOINT": daemon.endpoint},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    assert run("store_and_read")[-3:] == ["job running", "0 startRun", "1 completeRun"]

    (line,) = run("pipeline")
    assert line.startswith(f"{EVENTS} events on disk, ")

    lines = run("follow", "0")
    assert lines[:3] == ["1 storeJob job-1", "2 storeEvent event-0", "3 storeEvent event-1"]
    assert [line.split()[2] for line in lines[3:]] == [f"delta-{number}" for number in range(EVENTS)]
    assert run("follow", "0") == []  # it goes on from where it ended
    run("store_and_read")
    assert run("follow", "0")[-1].startswith(f"{EVENTS + 6} storeEvent")


def test_each_client_has_the_same_examples() -> None:
    assert {path.stem for path in PYTHON.iterdir() if path.suffix == ".py"} == {
        path.stem for path in TYPESCRIPT.iterdir() if path.suffix == ".mjs"
    }
