"""`import` can be cut short anywhere, and goes on when it is run again."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perstack_stored import startup
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, open_folders, set_up
from perstack_stored.journal.entry_format import record_places
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.offline import import_tree as import_later
from perstack_stored.offline.check.journal import recover_only
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.tree_import import first_start
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.datadir import checkpoint, event, job
from tests.import_tree.imported import THEIRS, Imported, put_stored, records
from tests.import_tree.test_resume import FailingFiles, PowerCutError
from tests.import_tree.trees import START_MS, Asker, store
from tests.offline.bases import copy_base


def written(base: Path) -> int:
    """Entries of the journal, counted from outside."""
    return sum(path.read_bytes().count(b"PSE1") for path in (base / ".stored/journal").glob("*.segment"))


def test_an_import_that_was_killed_goes_on_when_it_is_run_again(
    base: Path, source: Path, tmp_path: Path
) -> None:
    """The records are those of one that nobody disturbed; a daemon may run in between."""
    for number in range(800):
        store(source, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number, text="x" * 600))
    whole = tmp_path / "whole"
    assert Imported(whole, source).counts == (800, 0, 0, 0)
    command = [sys.executable, "-m", "perstack_stored", "import", "--base-path", str(base), str(source)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    eventually(lambda: base.exists() and written(base) >= 2, "it has stored some")
    process.kill()
    process.wait()
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        held = len(asker.records())
        daemon.kill()
    last = Imported(base, source)
    assert last.status == 0
    assert last.counts == (800 - held, held, 0, 0)
    assert records(base) == records(whole)


def import_in_this_process(base: Path, source: Path, files: FileSystem) -> None:
    """As the command does, with a file system that may fail."""
    set_up(str(base), Settings().folder_mode)
    folders = open_folders(files, str(base))
    report = Report(lambda _: None, import_later.FINDINGS, import_later.NOTES)
    descriptor = import_later.open_source(str(source))
    try:
        held = DataDir(str(base), files, folders)
        import_later.import_later(held, Settings(first_segment_bytes=1 << 16), descriptor, report, force=True)
    finally:
        for fd in (descriptor, *folders):
            os.close(fd)


def _without_ahead(
    files: FileSystem, dir_fd: int, sessions: Sessions, options: JournalOptions, **given: Any
) -> JournalWriter:
    return JournalWriter(files, dir_fd, sessions, options._replace(ahead=False), **given)


def test_an_import_may_end_at_any_change_to_the_disk(
    ours: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time, running it again makes of it what an undisturbed one makes; also with --force."""
    monkeypatch.setattr(first_start, "BATCH_RECORDS_MAX", 3)
    # Made ahead, a segment would change the disk from a thread of its own.
    monkeypatch.setattr(startup, "JournalWriter", _without_ahead)
    limit, umask = sys.getrecursionlimit(), os.umask(0o022)
    for op, value in (*THEIRS, ("storeEvent", event())):
        store(source, op, value, written_ms=START_MS)
    for number in range(4):
        store(source, "storeEvent", event(id=f"e{number}", timestamp=START_MS + number))
        store(source, "storeCheckpoint", checkpoint(id=f"c{number}"), written_ms=START_MS + number)
    found = []
    for changes in itertools.count():
        copy = copy_base(ours, tmp_path / f"cut{changes}")
        try:
            import_in_this_process(copy, source, FailingFiles(changes))
        except PowerCutError:
            import_in_this_process(copy, source, FileSystem())
            found.append(copy)
            continue
        expected = all_payloads(copy)
        break
    sys.setrecursionlimit(limit)
    os.umask(umask)
    assert len(expected) == 4 + 11
    assert len(found) > 10
    for copy in found:
        assert all_payloads(copy) == expected, f"{copy.name}"


def all_payloads(base: Path) -> list[bytes]:
    """What every record of a base holds, read in this process."""
    files = FileSystem()
    with locked_datadir(str(base), "test", reads_only=True) as held:
        end = recover_only(files, held.folders.journal)
        reader = JournalReader(files, held.folders.journal)
        found = [
            bytes(entry.data[place.start : place.start + place.length])
            for entry in reader.entries(reader.start(), LogPosition(end.position, end.number, end.end))
            for place in record_places(entry.data, entry.header)
        ]
        reader.close()
    return found


def test_an_import_cut_short_at_the_start_of_a_daemon_is_finished_first(base: Path, source: Path) -> None:
    """The tree of the base, then the other."""
    put_stored(base)
    store(base, "storeJob", job(id="own"))
    (base / ".stored/import.state").touch()
    store(source, "storeJob", job(id="other", startedAt=1))
    assert Imported(base, source).counts == (1, 0, 0, 0)
    assert not (base / ".stored/import.state").exists()
    assert [value["id"] for _, _, value in records(base)] == ["own", "other"]
