"""Index or tree fails while the daemon runs: stores and reads go on, and it is right again by itself."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.index.event_reader import block_events
from tests.crash.judge import judge
from tests.crash.load import load
from tests.crash.observed import Observer
from tests.crash.rounds import SETTINGS, await_progress
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.image import image, needs_images
from tests.helpers.once import made_once
from tests.helpers.raw_client import Raw, event

_MIB = 1 << 20
_SEED = 5
_AT_CWD = -100
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10

pytestmark = pytest.mark.timeout(300)


class Used(NamedTuple):
    """A base that was served and stopped, and what its clients recorded."""

    base: Path
    histories: list[Path]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Used:
    """Everything in the index's file, nothing in SQLite's log any more."""

    def make(folder: Path) -> None:
        daemon = RunningDaemon(folder / "base", *SETTINGS).start()
        try:
            with load(daemon.endpoint, folder / "history", 11, ("awaiting", "batching")) as clients:
                eventually(lambda: clients.recorded() > 200_000, "it is filled")
                clients.join()
            assert daemon.stop() == 0
        finally:
            daemon.make_sure_it_ended()

    folder = made_once(tmp_path_factory, "used", make)
    return Used(folder / "base", sorted((folder / "history").glob("*.jsonl")))


class Served:
    """A daemon on a used base, and what is seen of it."""

    def __init__(self, daemon: RunningDaemon, observer: Observer) -> None:
        self.daemon = daemon
        self.index = daemon.base / ".stored" / "index.sqlite"
        self.histories: list[Path] = []
        self._observer = observer

    def stats(self, projection: str) -> dict[str, Any]:
        """What `stats` says of index or tree."""
        found: dict[str, Any] = self._observer.stats()[projection]
        return found

    def await_rebuilt(self) -> None:
        """The index was rebuilt, once, and is as far as the journal; that was logged and counted."""
        eventually(lambda: self.stats("index")["rebuilds"] == 1, "the index is rebuilt")
        eventually(lambda: self.stats("index")["fault"] == "", "and nothing is wrong with it")
        stats = self.stats("index")
        assert stats["faults"] >= 1
        assert stats["starts"] == 2
        assert len(self.daemon.events("index_given_up")) == 1

    def reasons(self) -> list[str]:
        """Why an index was rebuilt."""
        return [str(event["reason"]) for event in self.daemon.events("index_rebuilt")]

    def ask(self, op: str, **arguments: Any) -> tuple[dict[str, Any], bytes]:
        """Header and body of an answer that is not to be tried again."""
        return self._observer.ask(op, **arguments)

    def read_some(self) -> None:
        """Reads of all threads are answered, in the end."""
        assert self._observer.read_all()
        assert self._observer.value("getAllJobs")
        assert self._observer.value("retrieveJob", jobId="none") is None

    def codes(self) -> set[str]:
        """Codes of errors that were answered."""
        return set(self._observer.stats()["refused"])


@contextmanager
def served(folder: Path, used: Used, base: Path | None = None) -> Iterator[Served]:
    """Serve a copy under a load; afterwards the judge says that all is well, also after another start."""
    base = base or folder / "base"
    shutil.copytree(used.base, base)
    daemon = RunningDaemon(base, *SETTINGS, log=folder / "daemon.log").start()
    try:
        with load(daemon.endpoint, folder / "history", _SEED, ("steady",)) as clients:
            await_progress(clients)
            with Observer(daemon.endpoint) as observer:
                found = Served(daemon, observer)
                found.read_some()
                yield found
                found.read_some()
                assert not found.codes() & {"INTERNAL", "DAMAGED"}
            await_progress(clients)
            clients.join()
        histories = [*used.histories, *clients.histories, *found.histories]
        _judge(histories, daemon)
        assert daemon.stop() == 0
        rebuilt = found.reasons()
        daemon.start()
        _judge(histories, daemon)
        assert daemon.stop() == 0
        assert found.reasons() == rebuilt
    finally:
        daemon.make_sure_it_ended()


def _judge(histories: list[Path], daemon: RunningDaemon) -> None:
    verdict = judge(histories, daemon.endpoint, daemon.base)
    assert not verdict.kinds, str(verdict)
    assert verdict.acknowledged > 0


def _overwrite(path: Path) -> None:
    """Random bytes in the place of all, as a failing disk or a wrong command leaves them."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _exchange(path: Path) -> None:
    """Another file under the name, with the same content."""
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.rename(path)


# --- the index -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "suffix", "says"),
    [
        (_overwrite, "", ""),  # or who read it was first
        (_exchange, "", r"index\.sqlite is another file"),
        (Path.unlink, "", r"index\.sqlite was removed"),
        (_overwrite, "-sums", r"index\.sqlite-sums was written to"),
        # SQLite may miss it first ("disk I/O error"), or who opens the index makes another one.
        (Path.unlink, "-wal", r"index\.sqlite-wal (was removed|is another file)|disk I/O error"),
    ],
)
def test_an_index_that_is_tampered_with_is_rebuilt(
    tmp_path: Path, used: Used, harm: Callable[[Path], None], suffix: str, says: str
) -> None:
    """Noticed under a load within a moment; no read gets a wrong answer, or one that it must not repeat."""
    with served(tmp_path, used) as found:
        harm(_beside(found.index, suffix))
        found.await_rebuilt()
        (reason,) = found.reasons()
        assert re.search(says, reason)


def _has_pages_of_its_own(index: Path) -> bool:
    """Whether SQLite's log has frames that were not checkpointed (https://sqlite.org/walformat.html)."""
    shared = _beside(index, "-shm").read_bytes()
    frames, checkpointed = (int.from_bytes(shared[at : at + 4], sys.byteorder) for at in (16, 96))
    return frames > checkpointed


def test_an_overwritten_log_of_the_index_is_no_more_than_another_rebuild(tmp_path: Path, used: Used) -> None:
    """The writer, the tree or a read meets it first; in each case the index is rebuilt."""
    with served(tmp_path, used) as found:
        writer = found.daemon.workers()["index"]

        def overwritten() -> bool:
            signals.stop(writer)
            try:
                # Else the next transaction overwrites the log, and nobody meets the damage.
                is_used = _has_pages_of_its_own(found.index)
                if is_used:
                    _overwrite(_beside(found.index, "-wal"))
            finally:
                os.kill(writer, signal.SIGCONT)
            return is_used

        eventually(overwritten, "the log has pages that the index lacks")
        found.await_rebuilt()


@contextmanager
def at_rest(folder: Path, used: Used) -> Iterator[Served]:
    """Serve a copy whose workers have nothing to do."""
    shutil.copytree(used.base, folder / "base")
    daemon = RunningDaemon(folder / "base").start()
    try:
        with Observer(daemon.endpoint) as observer:
            eventually(lambda: observer.stats()["tree"]["lagRecords"] == 0, "nothing is to be done")
            found = Served(daemon, observer)
            yield found
            found.read_some()
        assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()


def _overwrite_unseen(index: Path, writer: int) -> None:
    """As when the disk changes bytes by itself: no time of a file tells. The writer is left stopped."""
    before = index.stat()
    signals.stop(writer)
    _overwrite(index)
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("op", ["retrieveJob", "getAllJobs", "readAll"])
def test_a_read_that_meets_a_damaged_index_has_it_rebuilt(tmp_path: Path, used: Used, op: str) -> None:
    """Its answer is to try again, and then it is answered."""
    with at_rest(tmp_path, used) as found:
        writer = found.daemon.workers()["index"]
        _overwrite_unseen(found.index, writer)
        os.kill(writer, signal.SIGCONT)
        header, body = found.ask(op, **({"jobId": "none"} if op == "retrieveJob" else {}))
        assert header["ok"]
        assert (body == b"null") is (op == "retrieveJob")
        found.await_rebuilt()
        assert "somebody else" not in found.reasons()[0]
        assert {event["op"] for event in found.daemon.events("read_failed")} == {op}
        _judge(used.histories, found.daemon)


def test_a_flipped_bit_in_an_event_block_is_not_taken_for_damage_of_the_journal(
    tmp_path: Path, used: Used
) -> None:
    """SQLite does not see it, but the block's checksum does not match."""
    with at_rest(tmp_path, used) as found:
        uri = f"file:{found.index}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            id, job, run = database.execute("SELECT id, job, name FROM run").fetchone()
            crc = next(event.crc for event in block_events(database, id) if event.crc > 1 << 24)
        writer, before, data = found.daemon.workers()["index"], found.index.stat(), found.index.read_bytes()
        signals.stop(writer)
        with found.index.open("r+b") as file:
            file.seek(data.index(crc.to_bytes(4, "little")))
            file.write((crc ^ 1).to_bytes(4, "little"))
        os.utime(found.index, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.kill(writer, signal.SIGCONT)
        header, _ = found.ask("getEventContents", jobId=job, runId=run)
        assert header["ok"]
        found.await_rebuilt()
        assert "an event block" in found.reasons()[0]
        assert "DAMAGED" not in found.codes()
        _judge(used.histories, found.daemon)


def test_a_tree_that_meets_a_damaged_index_has_it_rebuilt(tmp_path: Path, used: Used) -> None:
    """While nobody reads, it is the only one who can."""
    with at_rest(tmp_path, used) as found:
        workers = found.daemon.workers()
        signals.stop(workers["tree"])
        with Raw(found.daemon.endpoint) as raw:
            raw.store("storeEvent", event(jobId="new"))
        eventually(lambda: found.stats("index")["lagRecords"] == 0, "it is indexed")
        _overwrite_unseen(found.index, workers["index"])
        os.kill(workers["tree"], signal.SIGCONT)
        found.await_rebuilt()
        assert "tree" in {event["process"] for event in found.daemon.events("index_damaged")}
        assert not found.daemon.events("read_failed")
        eventually(lambda: found.stats("tree")["lagRecords"] == 0, "the tree goes on")
        assert list(found.daemon.base.glob("jobs/new/runs/r1/event-*.json"))


def test_an_answer_that_broke_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    """A client that asks for the same part again, as after a lost answer, learns that the rest is gone."""
    daemon = RunningDaemon(tmp_path / "base", "--answer-bytes", str(64 << 10)).start()
    try:
        with Raw(daemon.endpoint) as raw:
            for n in range(300):
                raw.store("storeEvent", event(f"e{n}", timestamp=n, text="x" * 10_000))
            answer = raw.ask("getEventContents", {"jobId": "j1", "runId": "r1"})
            segment = daemon.base / ".stored/journal/0000000001.segment"
            with segment.open("r+b") as file:
                file.seek(2_500_000)
                file.write(b"y" * 20_000)
            while answer.header["ok"]:
                part = answer.header["more"]
                answer = raw.ask("readPart", part)
            assert answer.code == "DAMAGED"
            assert raw.ask("readPart", part).code == "READ_GONE"
    finally:
        daemon.make_sure_it_ended()


def test_an_index_that_is_damaged_again_and_again_is_rebuilt_less_and_less_often(
    tmp_path: Path, used: Used
) -> None:
    """Building it takes what stores need: the second time it waits."""
    with served(tmp_path, used) as found:
        for times in (1, 2):
            _overwrite(found.index)
            eventually(lambda: found.stats("index")["rebuilds"] == times, "it is rebuilt")  # noqa: B023
        first, second = (event["rebuilt_in_s"] for event in found.daemon.events("index_given_up"))
        assert second > 10 * first


# --- permissions -----------------------------------------------------------------------------------


def _flags(path: Path, change: Callable[[int], int]) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GET_FLAGS, struct.pack("i", 0)))
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("i", change(flags)))
    finally:
        os.close(fd)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """As `chattr +i`: a permission that root lacks too."""
    _flags(path, lambda flags: flags | _IMMUTABLE)
    try:
        yield
    finally:
        _flags(path, lambda flags: flags & ~_IMMUTABLE)


@pytest.mark.parametrize(
    ("projection", "where"),
    [
        ("index", ".stored/index.sqlite-wal"),
        ("tree", "jobs"),
        ("tree", f"jobs/s{_SEED}-0-steady"),
        ("tree", ".stored"),
    ],
)
def test_what_may_not_be_written_stops_one_projection_until_it_may(
    tmp_path: Path, used: Used, projection: str, where: str
) -> None:
    """The fault is logged, counted and shown, stores go on; when it is mended, so does the projection."""
    needs_images()
    with image(tmp_path, 96 * _MIB) as disk, served(tmp_path, used, disk.path / "base") as found:
        path = found.daemon.base / where
        eventually(path.exists, "it is there")
        before = found.stats(projection)
        with immutable(path), load(found.daemon.endpoint, tmp_path / "more", 6, ("steady",)) as more:
            eventually(lambda: found.stats(projection)["fault"] != "", "the fault is shown")
            stats = found.stats(projection)
            assert stats["faults"] == before["faults"] + 1
            assert {event["process"] for event in found.daemon.events("projection_stopped")} == {projection}
            if projection == "tree":
                found.read_some()
            await_progress(more)
            more.join()
        found.histories += more.histories
        eventually(lambda: found.stats(projection)["fault"] == "", "it goes on")
        assert found.daemon.events("projection_goes_on")
        assert found.stats(projection)["starts"] == before["starts"]
        assert found.stats("tree")["blocked"] == 0


def test_jobs_with_a_file_in_its_place_stops_the_tree_until_it_is_back(tmp_path: Path, used: Used) -> None:
    """Nothing is written to where it was moved; nothing counts as written."""
    with served(tmp_path, used) as found:
        jobs, aside = found.daemon.base / "jobs", tmp_path / "aside"
        eventually((jobs / f"s{_SEED}-0-steady/runs").exists, "the tree has it open")
        aside.write_bytes(b"not a folder")
        FileSystem().exchange(str(aside), str(jobs), source_dir=_AT_CWD, target_dir=_AT_CWD)
        eventually(lambda: "jobs" in found.stats("tree")["fault"], "the fault is shown")
        assert os.strerror(errno.ENOTDIR) in found.stats("tree")["fault"]
        found.read_some()
        files = sum(1 for _ in aside.rglob("*"))
        position = found.stats("index")["position"]
        eventually(lambda: found.stats("index")["position"] > position + 20, "stores go on")
        assert sum(1 for _ in aside.rglob("*")) == files
        assert jobs.read_bytes() == b"not a folder"
        FileSystem().exchange(str(aside), str(jobs), source_dir=_AT_CWD, target_dir=_AT_CWD)
        eventually(lambda: found.stats("tree")["fault"] == "", "the tree goes on")
