"""`perstack-storectl delete`: nothing goes that was not said, and nothing without a yes."""

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.client.behaviour.values import checkpoint, event, setting
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.storectl import COMMAND, Run, runner


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "perstack") as running:
        with Client(running.endpoint) as client:
            for n in range(3):
                client.store_event(event("job-1", n))
            client.store_event(event("job-1", 9) | {"runId": "other"})
            client.store_checkpoint(checkpoint("job-1", "c"))
            client.store_event(event("job-2", 1))
        yield running


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)


def left(daemon: RunningDaemon) -> dict[str, int]:
    """Count of events by job."""
    with Client(daemon.endpoint) as client:
        return {job["jobId"]: job["records"]["events"] for job in client.list_jobs()}


def on_a_terminal(base: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """The command on a terminal, where somebody answers its question."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "--base-path", str(base), "--color", "never", "delete", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        sent, answered = b"", False
        try:
            while piece := os.read(ours, 65536):
                sent += piece
                if b"[y/N]" in sent and not answered:
                    answered = True
                    os.write(ours, answer.encode() + b"\n")
        except OSError:  # the other end is closed
            pass
        status = process.wait(timeout=120)
    os.close(ours)
    return status, sent.decode()


def test_without_a_terminal_it_needs_yes(daemon: RunningDaemon, run: Run) -> None:
    before = left(daemon)
    ran = run("delete", "job-1")
    assert (ran.status, ran.out) == (2, "")
    assert "--yes" in ran.error
    assert left(daemon) == before


def test_with_yes_it_deletes_and_says_what(daemon: RunningDaemon, run: Run) -> None:
    """A whole job; then it is not there any more."""
    ran = run("delete", "job-1", "--yes", "--why", "asked by a user")
    assert (ran.status, ran.error) == (0, "")
    assert ran.out.startswith("deleted job job-1 at position 7: 2 runs, 1 checkpoint, 4 events; ")
    assert left(daemon) == {"job-2": 1}
    with Client(daemon.endpoint) as client:
        assert [one["why"] for one in client.deletions()] == ["asked by a user"]
    ran = run("delete", "job-1", "--yes")
    assert (ran.status, "nothing is stored of job job-1" in ran.error) == (1, True)


def test_a_run_goes_alone(daemon: RunningDaemon, run: Run) -> None:
    ran = run("--json", "delete", "job-1", "--run", "r", "--yes")
    (value,) = ran.values
    assert (value["runId"], value["events"], value["checkpoints"], value["runs"]) == ("r", 3, 1, 1)
    assert left(daemon) == {"job-1": 1, "job-2": 1}


def test_with_yes_the_beginning_of_an_id_is_not_enough(daemon: RunningDaemon, run: Run) -> None:
    """It may fit another job when a script runs the next time."""
    before = left(daemon)
    assert run("delete", "job-", "--yes").status == 1
    assert run("delete", "job", "--yes").status == 1
    assert left(daemon) == before


@pytest.mark.parametrize("answer", ["", "n", "nonsense"])
def test_anything_but_yes_deletes_nothing(daemon: RunningDaemon, answer: str) -> None:
    before = left(daemon)
    status, said = on_a_terminal(daemon.base, answer, "job-1")
    assert status == 1
    assert "delete job job-1: 2 runs, 1 checkpoint, 4 events; " in said
    assert "nothing was deleted" in said
    assert left(daemon) == before


def test_a_yes_deletes(daemon: RunningDaemon) -> None:
    """On a terminal the beginning of an id will do: the question has all of it."""
    status, said = on_a_terminal(daemon.base, "y", "job-2")
    assert (status, "deleted job job-2" in said) == (0, True)
    assert left(daemon) == {"job-1": 4}


def test_redact_masks_what_is_kept(daemon: RunningDaemon, run: Run) -> None:
    """The run stays, with a setting that has no secret any more; a second time changes nothing."""
    with Client(daemon.endpoint) as client:
        client.store_run_setting(setting("job-1"))
    ran = run("redact", "job-1", "r")
    assert (ran.status, ran.error) == (0, "")
    assert ran.out == "masked the secrets of run r of job job-1 at position 8\n"
    with Client(daemon.endpoint) as client:
        (kept,) = client.get_all_runs()
        assert kept["providerConfig"]["apiKey"] == "***"
        assert kept["input"] == {"text": "hello"}
        assert not any("secret" in str(record["value"]) for record in client.follow(idle_s=0))
    assert left(daemon) == {"job-1": 4, "job-2": 1}
    assert "already" in run("redact", "job-1", "r").out
    (value,) = run("--json", "redact", "job-1", "r").values
    assert value == {"position": None, "jobId": "job-1", "runId": "r"}
    assert run("redact", "job-1", "other").status == 1


def test_redact_masks_what_was_stored_again(daemon: RunningDaemon, run: Run) -> None:
    """A later setting does not count, but the history has it. Half a character holds up nothing."""
    with Client(daemon.endpoint) as client:
        client.store_run_setting(setting("job-1") | {"input": {"text": "cut \ud83d", "\udc00": 1}})
        assert run("redact", "job-1", "r").status == 0
        client.store_run_setting(setting("job-1"))
        assert run("redact", "job-1", "r").out.startswith("masked")
        assert not any("secret" in str(record["value"]) for record in client.follow(idle_s=0))
        (kept,) = client.get_all_runs()
        assert kept["input"] == {"text": "cut \ufffd", "\ufffd": 1}
    assert "already" in run("redact", "job-1", "r").out


def test_it_returns_when_the_bytes_are_erased(daemon: RunningDaemon, run: Run) -> None:
    """With --wait-erased: then no file of the base holds an id of the job's events any more."""
    stored = daemon.base / ".stored"
    assert any(b'"job-1"' in path.read_bytes() for path in stored.rglob("*.segment"))
    ran = run("delete", "job-1", "--yes", "--wait-erased")
    assert ran.status == 0
    assert ran.out.splitlines()[-1] == "erased: no file of the daemon holds it any more"
    left_over = [path for path in stored.rglob("*") if path.is_file() and b"job-1-1" in path.read_bytes()]
    assert not left_over
    assert left(daemon) == {"job-2": 1}
