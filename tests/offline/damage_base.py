"""A base to be damaged: of several segments, stopped in order or killed with a torn tail."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, DataDir, open_folders
from perstack_stored.index.connection import connect
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.entry_format import NO_SESSION, SEGMENT_HEADER_BYTES, Record, padded
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import walk
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.locked import keeping_sessions, slices
from perstack_stored.protocol.frames import STORE_KINDS
from perstack_stored.tree.cursor import Cursor, save_cursor
from perstack_stored.tree.writer import TreeWriter
from tests.helpers.daemon import captured_run, under_other_job
from tests.helpers.datadir import dumps
from tests.offline.bases import one_of_each, segments
from tests.offline.inprocess import EndingFiles, Started

_RECORDS_OF_A_RUN = 60
_BATCH = 7
_TORN_BYTES = 700
_CHECKPOINT_EVERY = 40


class Made(NamedTuple):
    """A base to be damaged, and what is true of it."""

    path: Path
    answers: dict[str, list[Any]]
    proven: dict[str, int]  # of each segment: all before this offset was on disk
    padding: dict[str, frozenset[int]]  # of each segment: the offsets that no checksum covers
    position: int  # up to here all is on disk
    is_clean: bool


def _calls() -> list[tuple[str, bytes]]:
    """Runs as they were captured, and one of each thing that is special."""
    calls = list(one_of_each())
    for name in "abc":
        run = captured_run(name)[:_RECORDS_OF_A_RUN]
        calls += [(op, dumps(under_other_job(value, f"job-{name}"))) for op, value in run]
    return calls


def make(path: Path, *, clean: bool) -> Made:
    """Make a base of several segments, of two sessions and none, that was stopped in order, or not."""
    (path / ".stored/journal").mkdir(parents=True)
    (path / ".stored/lock").write_bytes(b'{"pid": 4194305, "role": "daemon"}\n')
    files = EndingFiles()
    folders = open_folders(files, str(path))
    batches = list(_batches(_calls()))
    third = len(batches) // 3
    proven: dict[str, int] = {}
    journal = _open(files, folders.journal)
    save_cursor(files, folders.stored, journal.store, Cursor(0, clean=True))
    for number, batch in enumerate(batches):
        if number and number % third == 0 and number < 3 * third:
            files.close(journal._fd)  # as if it had been killed
            journal = _open(files, folders.journal)
        journal.append(batch)
    reader = JournalReader(files, folders.journal)
    path_of_index = str(path / ".stored" / INDEX_NAME)
    following = IndexWriter(path_of_index, reader, journal.store)
    for number, entry in enumerate(list(reader.entries(following.place, journal.mark))):
        following.apply([entry])
        if number % _CHECKPOINT_EVERY == 0:
            following.checkpoint()  # so that there is something in the file, and in the log
    database = connect(path_of_index, read_only=True)
    tree = TreeWriter(DataDir(str(path), files, folders), database, reader, journal.store)
    for portion in slices(reader.entries(reader.start(), journal.mark)):
        tree.apply(portion)
    tree.sync(clean=True)
    tree.close()
    mark = journal.mark
    database.close()
    if clean:
        following.close()
        journal.close()
    else:
        _tear(files, journal)
        _freeze_index(path)
        following.close()
        _thaw_index(path)
    proven = {p.name: _proven(reader, p.name, mark, clean=clean) for p in segments(path)}
    padding = {name: _padding(files, reader, name, end) for name, end in proven.items()}
    files.end()
    os.close(folders.base)
    answers = Started(linked_copy(path, path.parent / f"{path.name}-whole")).answers
    return Made(path, answers, proven, padding, mark.position, clean)


def _open(files: FileSystem, journal_dir: int) -> JournalWriter:
    return JournalWriter(
        files,
        journal_dir,
        keeping_sessions(Settings()),
        JournalOptions(1 << 20, 64 << 10, ahead=False),
    )


def _batches(calls: list[tuple[str, bytes]]) -> Iterator[list[Append]]:
    """Batches of one to seven frames, alternately of two sessions and of none."""
    pick = random.Random(5)
    sessions = {bytes([n]) * 16: 0 for n in (1, 2)}
    rest = [Record(STORE_KINDS[op], 0, value) for op, value in calls]
    while rest:
        batch = []
        for _ in range(pick.randint(1, _BATCH)):
            count = pick.randint(1, 4)
            records, rest = rest[:count], rest[count:]
            session = pick.choice([*sessions, NO_SESSION])
            seq = 0
            if session != NO_SESSION:
                seq = sessions[session] + 1
                sessions[session] += len(records)
            if records:
                batch.append(Append(session, seq, records))
        if batch:
            yield batch


def _tear(files: FileSystem, journal: JournalWriter) -> None:
    """A last batch that was not acknowledged: whole, torn, and whole again."""
    records = [Record(Kind.EVENT, 0, dumps(_late(n))) for n in range(6)]
    journal.write([Append(NO_SESSION, 0, [item]) for item in records])
    end = journal.written.offset
    os.pwrite(journal._fd, os.urandom(_TORN_BYTES), end - _TORN_BYTES)
    files.close(journal._fd)


def _late(n: int) -> dict[str, Any]:
    event = {"type": "startRun", "id": f"late-{n}", "expertKey": "me", "timestamp": 1800000000000 + n}
    return {**event, "jobId": "late", "runId": "late", "stepNumber": 0, "text": "x" * 200}


def _freeze_index(base: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-sums"):
        path = base / ".stored" / (INDEX_NAME + suffix)
        if path.exists():
            shutil.copy(path, path.with_name(path.name + ".frozen"))


def _thaw_index(base: Path) -> None:
    """The index as it was while it was open: with what had not come from its log."""
    for path in (base / ".stored").glob("*.frozen"):
        path.rename(path.with_name(path.name.removesuffix(".frozen")))


def _proven(reader: JournalReader, name: str, mark: LogPosition, *, clean: bool) -> int:
    number = int(name.split(".", maxsplit=1)[0])
    reader.chain.refresh()
    end = reader.chain.end_of(number)
    if end is not None:
        return end
    return mark.offset + (64 if clean else 0)


def _padding(files: FileSystem, reader: JournalReader, name: str, end: int) -> frozenset[int]:
    """Offsets between the entries of a segment: an entry begins at a multiple of eight."""
    number = int(name.split(".", maxsplit=1)[0])
    found: set[int] = set()
    for entry in walk(reader.chain.file(number), SEGMENT_HEADER_BYTES, end):
        length = entry.header.length
        found.update(range(entry.offset + length, entry.offset + padded(length)))
    return frozenset(found)


def linked_copy(base: Path, target: Path) -> Path:
    """A copy to be damaged. Files of the tree are never written to, so a second name will do."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base / ".stored", target / ".stored")
    shutil.copytree(base / "jobs", target / "jobs", copy_function=os.link)
    return target
