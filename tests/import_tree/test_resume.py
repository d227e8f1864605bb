"""An import that was cut short is taken up again; here in this process, to cut it everywhere."""

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import Buffer
from perstack_stored.datadir.layout import DataDir, open_folders, set_up
from perstack_stored.journal.entry_format import FLAG_IMPORTED, record_places
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.tree_import import first_start
from perstack_stored.tree_import import survey as import_survey
from tests.helpers.datadir import checkpoint, dumps, event, job, setting
from tests.import_tree.trees import START_MS, put_golden, store
from tests.offline.inprocess import EndingFiles

BATCH = 3


class PowerCutError(BaseException):
    """Not an error that anybody would handle."""


class FailingFiles(EndingFiles):
    """Ends everything at the nth operation that changes something."""

    def __init__(self, changes: int) -> None:
        super().__init__()
        self.left = changes

    def _change(self) -> None:
        if self.left == 0:
            raise PowerCutError
        self.left -= 1

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        self._change()
        super().write(fd, buffers, offset)

    def sync_data(self, fd: int) -> None:
        self._change()
        super().sync_data(fd)

    def sync(self, fd: int) -> None:
        self._change()
        super().sync(fd)

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        self._change()
        return super().create(name, mode, dir_fd=dir_fd)

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        self._change()
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        self._change()
        super().unlink(name, dir_fd=dir_fd)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_start, "BATCH_RECORDS_MAX", BATCH)


def start(base: Path, files: EndingFiles) -> tuple[bool, list[tuple[int, int, bytes]]]:
    """Whether an import was wanted, and all records after it. The journal is left as a crash leaves it."""
    try:
        return started(base, files)
    finally:
        files.end()


def started(base: Path, files: EndingFiles) -> tuple[bool, list[tuple[int, int, bytes]]]:
    """The same, with all files left open, as a process has them before it ends."""
    set_up(str(base), Settings().folder_mode)
    folders = open_folders(files, str(base))
    sessions = Sessions(sessions_max=10, session_seconds=60, remembered_records_max=10)
    journal = JournalWriter(files, folders.journal, sessions, JournalOptions(1 << 20, 1 << 16, ahead=False))
    datadir = DataDir(str(base), files, folders)
    wanted = first_start.import_wanted(datadir, journal)
    if wanted:
        first_start.import_tree(datadir, journal)
    reader = JournalReader(files, folders.journal)
    found = []
    for entry in reader.entries(reader.start(), journal.mark):
        for place in record_places(entry.data, entry.header):
            payload = bytes(entry.data[place.start : place.start + place.length])
            found.append((place.kind, place.flags, payload))
    reader.close()
    return wanted, found


def put_some(base: Path) -> None:
    put_golden(base)
    store(base, "storeJob", job())
    store(base, "storeRunSetting", setting())
    for number in range(6):
        store(base, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number))
        store(base, "storeCheckpoint", checkpoint(id=f"c{number}"), written_ms=START_MS + number)


def test_an_import_may_end_at_any_change_to_the_disk(tmp_path: Path) -> None:
    """Each time the next start makes of it what an undisturbed one makes."""
    whole = tmp_path / "whole"
    put_some(whole)
    wanted, expected = start(whole, EndingFiles())
    assert wanted
    assert len(expected) == 31
    # So that a setting keeps its time, whatever the journal held of it before.
    assert {flags for _, flags, _ in expected} == {FLAG_IMPORTED}
    changes = 0
    while True:
        base = tmp_path / f"cut{changes}"
        put_some(base)
        # Checkpoints come by the times of their files, and those of golden are of now.
        for path in (base / "jobs").rglob("checkpoints/*.json"):
            status = (whole / path.relative_to(base)).stat()
            os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
        files = FailingFiles(changes)
        try:
            start(base, files)
        except PowerCutError:
            _, found = start(base, EndingFiles())
            assert found == expected, f"cut before change {changes}"
            assert start(base, EndingFiles()) == (False, expected)
            changes += 1
            continue
        break
    assert changes > 2 * len(expected) / BATCH


class MeddledFiles(EndingFiles):
    """Does something to a file when it is looked at for the nth time."""

    def __init__(self, name: str, nth: int, meddle: Callable[[], object]) -> None:
        super().__init__()
        self._name = name
        self._left = nth
        self._meddle = meddle

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                self._meddle()
        return super().stat(name, dir_fd=dir_fd)


def deny(number: int) -> Callable[[], None]:
    """Fails as the kernel does."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("meddle", "expected"),
    [
        (lambda path: path.write_bytes(dumps(job(status="completed"))), "completed"),
        (lambda path: path.write_bytes(b"{"), "not_json"),
        (lambda path: path.unlink(), "unreadable"),
        (lambda path: path.rename(path.with_name("gone")) and path.symlink_to("gone"), "link"),
        (lambda path: path.unlink() or path.mkdir(), "not_a_file"),
    ],
)
def test_a_file_that_changes_during_the_import_is_taken_or_left_as_it_became(
    tmp_path: Path, meddle: Callable[[Path], object], expected: str
) -> None:
    """It is checked again if it is not what it was when the order was made."""
    base = tmp_path / "base"
    path = store(base, "storeJob", job())
    store(base, "storeEvent", event())
    with structlog.testing.capture_logs() as log:
        _, found = start(base, MeddledFiles("job.json", 2, lambda: meddle(path)))
    skipped = [line["reason"] for line in log if line["event"] == "import_file_skipped"]
    if expected == "completed":
        assert b"completed" in newest(found, Kind.JOB)
        assert skipped == []
    else:
        assert [kind for kind, _, _ in found] == [Kind.EVENT]
        assert skipped == [expected]


def test_a_file_that_may_not_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    """The others are imported."""
    base = tmp_path / "base"
    store(base, "storeJob", job())
    store(base, "storeEvent", event())
    with structlog.testing.capture_logs() as log:
        _, found = start(base, MeddledFiles("job.json", 1, deny(errno.EACCES)))
    assert [kind for kind, _, _ in found] == [Kind.EVENT]
    assert [(line["file"], line["reason"]) for line in log if line["event"] == "import_file_skipped"] == [
        ("jobs/job-1/job.json", "unreadable")
    ]


def test_running_out_of_descriptors_ends_the_import_and_skips_nothing(tmp_path: Path) -> None:
    """It says nothing of the file at hand; the next start goes on."""
    base = tmp_path / "base"
    store(base, "storeJob", job())
    with pytest.raises(OSError, match="Too many open files"):
        start(base, MeddledFiles("job.json", 1, deny(errno.EMFILE)))
    _, found = start(base, EndingFiles())
    assert [kind for kind, _, _ in found] == [Kind.JOB]


def test_progress_is_reported_in_both_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many files of how many, how many records, how many skipped."""
    monkeypatch.setattr(import_survey, "PROGRESS_SECONDS", 0)
    base = tmp_path / "base"
    put_some(base)
    with structlog.testing.capture_logs() as log:
        start(base, EndingFiles())
    told = [line for line in log if line["event"] == "import_progress"]
    assert {line["step"] for line in told} == {"reading", "storing"}
    assert told[-1] == {
        "event": "import_progress", "log_level": "info", "step": "storing", "files": 30, "of": 31,
        "records": 27, "skipped": 0,
    }  # fmt: skip
    assert log[-1]["event"] == "import_done"
    assert log[-1]["imported"] == {"job": 4, "run_setting": 4, "checkpoint": 10, "event": 13}


def cut_after(base: Path, records: int) -> None:
    """An import that ends with at least `records` records stored."""
    for changes in range(1000):
        with contextlib.suppress(PowerCutError):
            start(base, FailingFiles(changes))
        if held(base) >= records:
            return
    raise AssertionError("the import can't be cut so late")


def held(base: Path) -> int:
    files = EndingFiles()
    try:
        folders = open_folders(files, str(base))
        sessions = Sessions(sessions_max=10, session_seconds=60, remembered_records_max=10)
        journal = JournalWriter(
            files, folders.journal, sessions, JournalOptions(1 << 20, 1 << 16, ahead=False)
        )
        return journal.mark.position
    finally:
        files.end()


def newest(found: list[tuple[int, int, bytes]], kind: Kind) -> bytes:
    return [payload for of, _, payload in found if of == kind][-1]


def test_a_job_that_changed_and_changed_back_between_attempts_counts_as_it_is(tmp_path: Path) -> None:
    """What the journal holds last of it is what its file holds."""
    base = tmp_path / "base"
    for number in range(12):
        store(base, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number))
    first: dict[str, Any] = job(startedAt=1)
    second: dict[str, Any] = job(startedAt=1, status="completed")
    path = store(base, "storeJob", first)
    original = path.read_bytes()
    cut_after(base, 3)
    store(base, "storeJob", second)
    cut_after(base, 9)
    store(base, "storeJob", first)
    _, found = start(base, EndingFiles())
    assert newest(found, Kind.JOB) == original
    assert len([kind for kind, _, _ in found if kind == Kind.EVENT]) == 12


def test_an_event_that_came_between_attempts_is_imported(tmp_path: Path) -> None:
    """After what is stored already, and nothing else twice."""
    base = tmp_path / "base"
    for number in range(12):
        store(base, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number))
    cut_after(base, 6)
    store(base, "storeEvent", event(id="late", timestamp=1))
    _, found = start(base, EndingFiles())
    payloads = [payload for _, _, payload in found]
    assert len(payloads) == len(set(payloads)) == 13
    assert any(b'"late"' in payload for payload in payloads)
