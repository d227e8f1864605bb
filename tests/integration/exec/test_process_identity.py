"""A process is known by more than its number: what another one has left is not believed."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from perstack_stored.datadir.lock import describe, holder_of, identity_of
from tests.helpers.daemon import running_daemon
from tests.integration.exec.commands import is_served, run


@pytest.mark.parametrize("process", [{"process": "another boot 1"}, {}])
def test_a_daemon_that_has_the_number_of_one_that_exec_started_is_left_running(
    base: Path, process: dict[str, str]
) -> None:
    """Numbers come again, in containers each time: the one that was written down has ended long ago."""
    with running_daemon(base) as daemon:
        (base / ".stored/exec").write_text(json.dumps({"pid": daemon.pid, **process}))
        assert run(base, "true").returncode == 0
        daemon.assert_alive()
        assert is_served(base)


def test_a_lock_that_names_an_earlier_process_is_not_believed(base: Path) -> None:
    """The process that has that number now does not hold the base."""
    assert run(base, "true").returncode == 0
    folder = os.open(base / ".stored", os.O_RDONLY)
    with (base / ".stored/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for process, named in ((identity_of(os.getpid()), os.getpid()), ("another boot 1", 0)):
            lock.seek(0)
            lock.truncate()
            lock.write(json.dumps({"pid": os.getpid(), "process": process, "role": "daemon"}))
            lock.flush()
            holder = holder_of(folder)
            assert holder is not None
            assert holder.pid == named
            assert describe((base / ".stored/lock").read_bytes())[1] is bool(named)
    os.close(folder)
