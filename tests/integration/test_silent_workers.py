"""A worker that hangs is noticed, shown, ended and started again; one that is slow is left alone."""

import mmap
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_stored.process import hang_detector as silence
from perstack_stored.process.hang_detector import HangDetector
from perstack_stored.process.worker_status import BYTES, WorkerStatus
from perstack_stored.projection.process import ProjectionProcess
from perstack_stored.projection.worker_config import WorkerConfig
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.ports import free_port
from tests.helpers.raw_client import Raw, event
from tests.integration.test_tree_helper import JOBS, ROUNDS, helper_of, store_much

QUICK = ("--worker-silence-seconds", "2")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that hangs. It is another one's to end it."""
    signals.stop(pid)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_an_index_process_that_hangs_is_noticed_and_started_again(tmp_path: Path) -> None:
    """/readyz says so meanwhile; stores go on; afterwards a read has all that was stored."""
    where = f"127.0.0.1:{free_port()}"
    with (
        running_daemon(tmp_path / "base", *QUICK, "--metrics-bind", where) as daemon,
        Client(daemon.endpoint, timeout_s=60) as client,
        Raw(daemon.endpoint) as raw,
    ):
        client.store_event(event("before"))
        assert len(client.get_event_contents("j1", "r1")) == 1
        unready = []

        def is_noticed() -> bool:
            if status_of(f"http://{where}/readyz") == 503:
                unready.append(1)
            return bool(raw.ask("stats").value["index"]["starts"] > 1)

        with stopped(daemon.workers()["index"]):
            client.store_event(event("behind", timestamp=2))
            eventually(is_noticed, "it is started again")
        assert len(client.get_event_contents("j1", "r1")) == 2
        assert unready
        assert daemon.events("follower_silent")[0]["killed"]
        stats = raw.ask("stats").value["index"]
        assert stats["fault"] == ""
        assert stats["faults"] == 1
        assert status_of(f"http://{where}/readyz") == 200


def test_a_tree_process_that_hangs_is_started_again(tmp_path: Path) -> None:
    """Reads and stores don't notice; the tree is complete in the end."""
    with running_daemon(tmp_path / "base", *QUICK) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        eventually(lambda: "tree" in daemon.workers(), "it runs")
        with stopped(daemon.workers()["tree"]):
            client.store_event(event("e1"))
            eventually(lambda: bool(daemon.events("follower_silent")), "it is noticed")
            assert len(client.get_event_contents("j1", "r1")) == 1
        eventually(lambda: bool(list(tmp_path.glob("base/jobs/j1/runs/r1/event-*"))), "the file is there")


def working_helper(daemon: RunningDaemon) -> int | None:
    """Process id of the tree's helper, once it runs our program: stopped before, it holds its parent."""
    helper = helper_of(daemon)
    with suppress(OSError):
        if helper is not None and b"helper" in Path(f"/proc/{helper}/cmdline").read_bytes().split(b"\0"):
            return helper
    return None


@pytest.mark.timeout(600)
def test_a_tree_helper_that_hangs_is_done_without(tmp_path: Path) -> None:
    """Its part is made by the tree's process, which is not taken for one that hangs."""
    with running_daemon(tmp_path / "base", *QUICK) as daemon, Raw(daemon.endpoint) as raw:
        eventually(lambda: "tree" in daemon.workers(), "the tree's process runs")
        # It starts with a lag, so it wants a helper.
        store_much(daemon.endpoint)
        eventually(
            lambda: working_helper(daemon) is not None or raw.ask("stats").value["tree"]["lagRecords"] == 0,
            "it has a helper",
            60,
        )
        helper = working_helper(daemon)
        if helper is None:
            pytest.skip("the tree came to its end without a helper")
        with stopped(helper):
            eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is whole", 400)
        assert not any(one["killed"] for one in daemon.events("follower_silent"))
        for k in range(JOBS):
            assert len(list((tmp_path / f"base/jobs/j{k}").glob("runs/*/event-*"))) == ROUNDS


# --- what counts as hanging ------------------------------------------------------------------------


class Clock:
    """Stands in for the clock and for /proc."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.states = [b"S"]
        self.cpu = 0.0
        monkeypatch.setattr("perstack_stored.process.hang_detector.time.monotonic", lambda: self.now)
        monkeypatch.setattr(silence, "thread_states", lambda _pid: self.states)
        monkeypatch.setattr(silence, "cpu_seconds", lambda _pid: self.cpu)

    def run(self, share: float) -> Callable[[], None]:
        """The worker uses a share of each half second."""

        def meanwhile() -> None:
            self.cpu += share / 2

        return meanwhile

    def looks(
        self, silence: HangDetector, seconds: float, meanwhile: Callable[[], None] = lambda: None
    ) -> str:
        """What a look every half second finds in the end; "killed" where it would be."""
        reason, hangs = "", False
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            meanwhile()
            reason, hangs = silence.look()
            if hangs:
                return "killed"
        return reason


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_worker_with_progress_is_never_killed(clock: Clock) -> None:
    """However long its work takes as a whole: a beat or another record now and then is enough."""
    status = WorkerStatus()
    watch = HangDetector(1, status, 20)
    assert clock.looks(watch, 300, status.beat) == ""
    assert clock.looks(watch, 19) == ""
    status.at(7)
    assert clock.looks(watch, 19) == ""
    assert clock.looks(watch, 2) == "killed"


def test_a_worker_that_starts_has_more_time(clock: Clock) -> None:
    """It loads the interpreter first."""
    watch = HangDetector(1, WorkerStatus(), 20)
    assert clock.looks(watch, 59) == ""
    assert clock.looks(watch, 2) == "killed"


@pytest.mark.parametrize("syncs", [True, False])
def test_a_worker_that_waits_for_the_disk_is_shown_and_left_alone(clock: Clock, *, syncs: bool) -> None:
    """Killed, it would begin the same wait again. Stopped in the midst of it, it hangs all the same."""
    status = WorkerStatus()
    watch = HangDetector(1, status, 20)
    status.beat()
    assert clock.looks(watch, 1) == ""
    with status.in_sync():
        if not syncs:
            clock.states = [b"S", b"D"]
        assert "waits for the disk" in clock.looks(watch, 100)
        status.beat()
        assert clock.looks(watch, 1) == ""
        clock.states = [b"T", b"D"]
        assert clock.looks(watch, 45) == "killed"


@pytest.mark.parametrize("share", [0, 0.02])
def test_a_worker_that_gets_no_processor_is_shown_and_left_alone(clock: Clock, share: float) -> None:
    """One of low priority on a busy machine. Killed, it would have to begin again, and get none either."""
    status = WorkerStatus()
    watch = HangDetector(1, status, 20)
    status.beat()
    clock.states = [b"S", b"R"]
    assert "waits for a processor" in clock.looks(watch, 400, clock.run(share))
    status.beat()
    assert clock.looks(watch, 1) == ""


@pytest.mark.parametrize(("share", "seconds"), [(1, 21), (0.25, 60)])
def test_a_worker_that_runs_without_progress_is_killed(clock: Clock, share: float, seconds: float) -> None:
    """In an endless loop, also on a busy machine: later then."""
    status = WorkerStatus()
    watch = HangDetector(1, status, 20)
    status.beat()
    clock.states = [b"R"]
    assert clock.looks(watch, 19, clock.run(share)) == ""
    assert clock.looks(watch, seconds - 19, clock.run(share)) == "killed"


def test_a_worker_that_is_stopped_waits_for_no_processor(clock: Clock) -> None:
    """Some of its threads may be ready to run."""
    status = WorkerStatus()
    watch = HangDetector(1, status, 20)
    status.beat()
    clock.states = [b"T", b"R"]
    assert clock.looks(watch, 22) == "killed"


def test_the_kernel_says_how_long_a_process_ran() -> None:
    before = silence.cpu_seconds(os.getpid())
    while time.process_time() < before + 0.1:
        pass
    assert before + 0.05 < silence.cpu_seconds(os.getpid()) < before + 60
    assert silence.cpu_seconds(2**22 + 1) == 0  # no process has this number


def test_a_standstill_of_the_watching_process_does_not_count(clock: Clock) -> None:
    """As when the whole machine was suspended: nothing is known of that time."""
    status = WorkerStatus()
    watch = HangDetector(1, status, 20)
    status.beat()
    assert clock.looks(watch, 1) == ""
    for _ in range(5):
        clock.now += 1000
        assert watch.look() == ("", False)
    assert clock.looks(watch, 30) == "killed"


def test_both_ends_see_the_same_status() -> None:
    """What the worker writes is read by the server, also when the worker is gone."""
    ours, fd = WorkerStatus.shared()
    child = os.fork()
    if child == 0:
        theirs = WorkerStatus(mmap.mmap(fd, BYTES))
        theirs.at(9)
        theirs.describe("job", "jobs/ä\n/job.json")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(fd)
    assert ours.position == 9
    assert ours.described == ("job", "jobs/ä\n/job.json")
    ours.at(10)
    assert ours.described == ("", "")  # that was another record
    ours.describe("event", "x" * BYTES)
    assert ours.described == ("event", "")


def test_what_can_t_be_ended_yet_is_waited_for(tmp_path: Path) -> None:
    """A process in the midst of a call to a disk that hangs outlives SIGKILL: no other is started."""

    class Undying:
        pid = os.getpid()
        ended: int | None = None

        def kill(self) -> None:
            pass

        def poll(self) -> int | None:
            return self.ended

    config = WorkerConfig(
        str(tmp_path), "", 0o640, 0o750, 0, log_json=True, log_level="info", parent=os.getpid()
    )
    follower = ProjectionProcess("tree", config, -1)
    process = Undying()
    follower._process = process  # type: ignore[assignment]
    begun = time.monotonic()
    follower.stop()
    assert time.monotonic() - begun < 30
    assert not follower.running
    assert not follower.due()
    process.ended = -9
    assert follower.due()
