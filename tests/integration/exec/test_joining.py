"""All that run on a base share one daemon, and the last of them stops it."""

from pathlib import Path

from perstack_storage import Client
from tests.helpers.daemon import running_daemon
from tests.integration.exec.commands import (
    PROGRAM,
    WAITING,
    Running,
    daemon_pid,
    is_served,
    jobs,
    python,
    run,
    running,
)


def test_a_daemon_that_runs_is_joined_and_left_running(base: Path, tmp_path: Path) -> None:
    """Wherever it serves."""
    endpoint = f"ipc://{tmp_path}/elsewhere.sock"
    with running_daemon(base, "--bind", endpoint) as daemon:
        assert run(base, *python(PROGRAM, "job-1")).returncode == 0
        assert daemon.process is not None
        assert daemon.process.poll() is None
        assert daemon_pid(base) == daemon.pid
        with Client(endpoint) as client:
            assert len(client.get_events_by_run("job-1", "r")) == 300


def test_the_last_of_several_stops_the_daemon(base: Path) -> None:
    """The one that started it ends first: its daemon goes on for the other, and ends with that."""
    with running(base, *python(WAITING, "first")) as first:
        assert first.line() == "stored"
        pid = daemon_pid(base)
        with running(base, *python(WAITING, "second")) as second:
            assert second.line() == "stored"
            assert first.end() == 0
            assert daemon_pid(base) == pid
            assert is_served(base)
            assert second.end() == 0
            assert second.line() == "stored again"
    assert not is_served(base)
    assert jobs(base) == ["first", "first again", "second", "second again"]


def test_many_at_once_share_one_daemon(base: Path) -> None:
    """The first of them starts it; none fails, and in the end it is gone."""
    names = [f"job-{n}" for n in range(4)]
    started = [Running(base, *python(WAITING, name)) for name in names]
    assert [one.line() for one in started] == ["stored"] * 4
    with Client(base_path=base) as client:
        assert sorted(job["id"] for job in client.get_all_jobs()) == names
    assert [one.end() for one in started] == [0] * 4
    for one in started:
        one.process.communicate()
    assert not is_served(base)
    assert len(jobs(base)) == 8


def test_what_a_killed_exec_left_running_is_stopped_by_the_next(base: Path) -> None:
    with running(base, "sh", "-c", "echo runs; read line") as first:
        assert first.line() == "runs"
        pid = daemon_pid(base)
        first.process.kill()
        first.process.wait()
        assert daemon_pid(base) == pid
        assert is_served(base)
        assert run(base, *python(PROGRAM, "job-1")).returncode == 0
    assert not is_served(base)


def test_a_daemon_that_dies_under_the_command_is_reported(base: Path) -> None:
    """The status is the command's all the same; the next exec finds a base to serve."""
    killing = 'kill -KILL $(sed "s/[^0-9]*\\([0-9]*\\).*/\\1/" $PERSTACK_STORED_BASE/.stored/exec); exit 3'
    done = run(base, "sh", "-c", killing)
    assert done.returncode == 3
    assert "the daemon failed, with status -9" in done.stderr
    assert run(base, *python(PROGRAM, "job-1")).returncode == 0
