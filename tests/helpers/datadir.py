"""What the unit tests share: sample values, a journal on a real folder, and a forgetful disk."""

import fcntl
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from perstack_stored.datadir.filesystem import Buffer, FileSystem, read_whole
from perstack_stored.datadir.layout import INDEX_NAME, DataDir, FileSystemFeatures, Folders
from perstack_stored.index.connection import connect
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.deletion_guards import DeletionGuards
from perstack_stored.journal.entry_format import NO_SESSION, Record, record_places
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.read import event_queries, listings, queries
from perstack_stored.read import source as source_module
from perstack_stored.read.arguments import check_arguments
from perstack_stored.read.listing_cache import ListingCache
from perstack_stored.read.source import Source
from perstack_stored.tree.options import TreeOptions
from perstack_stored.tree.writer import TreeWriter

USAGE = {"inputTokens": 1, "outputTokens": 2, "reasoningTokens": 3, "totalTokens": 6, "cachedInputTokens": 0}
SESSION_A = bytes(range(1, 17))
SESSION_B = bytes(range(101, 117))


def dumps(value: object) -> bytes:
    """JSON as JavaScript's JSON.stringify writes it: lone surrogates escaped, all else as it is."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", text).encode()


def job(**fields: Any) -> dict[str, Any]:
    """A job."""
    return {
        "id": "job-1", "status": "running", "coordinatorExpertKey": "@me/expert@1.0.0", "totalSteps": 0,
        "startedAt": 1700000000000, "usage": USAGE,
    } | fields  # fmt: skip


def checkpoint(**fields: Any) -> dict[str, Any]:
    """A checkpoint."""
    return {
        "id": "cp-1", "jobId": "job-1", "runId": "run-1", "status": "init", "stepNumber": 1, "messages": [],
        "expert": {"key": "me@1.0.0", "name": "me", "version": "1.0.0"}, "usage": USAGE,
    } | fields  # fmt: skip


def event(**fields: Any) -> dict[str, Any]:
    """An event."""
    return {
        "type": "startRun", "id": "ev-1", "expertKey": "me", "timestamp": 1700000000000, "jobId": "job-1",
        "runId": "run-1", "stepNumber": 0,
    } | fields  # fmt: skip


def setting(**fields: Any) -> dict[str, Any]:
    """A run setting."""
    return {
        "jobId": "job-1", "runId": "run-1", "model": "m", "providerConfig": {"apiKey": "k"},
        "expertKey": "me",
        "input": {"text": "hi"}, "experts": {}, "reasoningBudget": "high", "maxSteps": 7, "maxRetries": 5,
        "timeout": 300000, "startedAt": 1700000000000, "updatedAt": 1700000000000,
        "perstackApiBaseUrl": "https://example.invalid", "env": {},
    } | fields  # fmt: skip


ALL_WAYS = FileSystemFeatures()
SAMPLES: dict[Kind, dict[str, Any]] = {
    Kind.JOB: job(),
    Kind.CHECKPOINT: checkpoint(),
    Kind.EVENT: event(),
    Kind.RUN_SETTING: setting(),
}


class Stored(NamedTuple):
    """A record as it was read from the journal."""

    position: int
    payload: bytes
    session: bytes
    seq: int
    time_ms: int


def sessions(*, guards: DeletionGuards | None = None, **settings: int) -> Sessions:
    """Sessions with small bounds."""
    bounds = {"sessions_max": 100, "session_seconds": 3600, "remembered_records_max": 64}
    return Sessions(guards=guards, **(bounds | settings))


def records(*payloads: bytes, kind: int = Kind.EVENT) -> list[Record]:
    """Records of some payloads."""
    return [Record(kind, 0, payload) for payload in payloads]


def append(*payloads: bytes, session: bytes = NO_SESSION, seq: int = 0) -> Append:
    """An item for `JournalWriter.append`."""
    return Append(session, seq, records(*payloads))


class JournalFolder:
    """A journal's folder, and what is open in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.sessions = sessions()

    def open(
        self,
        files: FileSystem | None = None,
        *,
        segment_bytes: int = 1 << 14,
        first_segment_bytes: int = 1 << 14,
        ahead: bool = False,
        sessions_max: int = 100,
    ) -> JournalWriter:
        """Open the journal; `sessions` is what it restored."""
        self.sessions = sessions(sessions_max=sessions_max)
        return JournalWriter(
            files or FileSystem(),
            self.fd,
            self.sessions,
            JournalOptions(segment_bytes, first_segment_bytes, ahead=ahead),
        )

    def reader(self) -> JournalReader:
        """A reader of the folder."""
        return JournalReader(FileSystem(), self.fd)

    def read(self, until: LogPosition) -> list[Stored]:
        """All records up to a mark."""
        reader = self.reader()
        try:
            return read_all(reader, until)
        finally:
            reader.close()

    def payloads(self, until: LogPosition) -> list[bytes]:
        """The payloads of all records up to a mark."""
        return [stored.payload for stored in self.read(until)]

    def segments(self) -> list[Path]:
        """Files of the segments, in order."""
        return sorted(self.path.glob("*.segment"))

    def snapshot(self) -> dict[str, bytes]:
        """Every file's bytes."""
        return {path.name: path.read_bytes() for path in sorted(self.path.iterdir())}


def read_all(reader: JournalReader, until: LogPosition) -> list[Stored]:
    """All records up to a mark."""
    found = []
    for entry in reader.entries(reader.start(), until):
        head = entry.header
        for i, place in enumerate(record_places(entry.data, head)):
            payload = bytes(entry.data[place.start : place.start + place.length])
            seq = head.seq + i if head.seq else 0
            found.append(Stored(head.position + i, payload, head.session, seq, head.time_ms))
    return found


class Died(BaseException):
    """The simulated process is no more."""


SECTOR_BYTES = 512


class SimulatedDisk(FileSystem):
    """Real files, a process that dies at a chosen call, and a disk that forgets what was not synced.

    Until a file is synced, each of its sectors holds the old or the new bytes after `cut_power`; until a
    folder is synced, its last renames and creations may be undone.
    """

    CALLS = frozenset(
        {"create", "open", "write", "allocate", "rename", "unlink", "sync_data", "sync", "sync_all",
        "list_dir", "some_files", "remove_dir",
         "create_unnamed", "give_name", "exchange", "truncate", "make_dir", "open_dir", "read", "stat"}
    )  # fmt: skip

    def __init__(self, seed: int = 0, *, dies_at: int | None = None) -> None:
        super().__init__()
        self.calls = 0
        self.random = Random(seed)
        self._dies_at = dies_at
        self._sectors: dict[
            tuple[int, int], tuple[int, int, bytes]
        ] = {}  # (inode, sector): fd, sector, old bytes
        self._names: list[Callable[[], None]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in SimulatedDisk.CALLS:
            self.calls += 1
            if self._dies_at is not None and self.calls > self._dies_at:
                raise Died(f"at call {self.calls}, {name}")
        return super().__getattribute__(name)

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(buffers)
        inode = os.fstat(fd).st_ino
        mine = -1
        for sector in range(offset // SECTOR_BYTES, -(-(offset + len(data)) // SECTOR_BYTES)):
            if (inode, sector) not in self._sectors:
                mine = os.dup(fd) if mine < 0 else mine
                old = b""  # of a file open for writing only, which is new
                if os.O_RDWR & fcntl.fcntl(fd, fcntl.F_GETFL):
                    old = os.pread(fd, SECTOR_BYTES, sector * SECTOR_BYTES)
                old = old.ljust(SECTOR_BYTES, b"\0")
                self._sectors[inode, sector] = (mine, sector, old)
        super().write(fd, [data], offset)

    def sync_data(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        for key in [key for key in self._sectors if key[0] == inode]:
            del self._sectors[key]

    def sync(self, fd: int) -> None:
        self._names.clear()

    def sync_all(self, fd: int) -> None:
        self._names.clear()
        self._sectors.clear()

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        fd = super().create(name, mode, dir_fd=dir_fd)
        self._names.append(lambda: os.unlink(name, dir_fd=dir_fd))
        return fd

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        try:
            replaced = read_whole(FileSystem(), target, dir_fd=target_dir)
        except IsADirectoryError:
            replaced = None
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

        def undo() -> None:
            os.rename(target, source, src_dir_fd=target_dir, dst_dir_fd=source_dir)
            if replaced is not None:
                fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=target_dir)
                os.write(fd, replaced)
                os.close(fd)

        self._names.append(undo)

    def lose_data(self) -> None:
        """Lose all that was written to files and not synced."""
        for fd, sector, old in self._sectors.values():
            os.pwrite(fd, old, sector * SECTOR_BYTES)
        self._sectors.clear()

    def cut_power(self) -> None:
        """Lose some of what was not synced."""
        odds = self.random.choice([0.0, 0.5, 0.9, 1.0])
        for fd, sector, old in self._sectors.values():
            if self.random.random() < odds:
                os.pwrite(fd, old, sector * SECTOR_BYTES)
        undone = self.random.randint(0, len(self._names))
        while undone:
            self._names.pop()()
            undone -= 1


class FailingFiles(FileSystem):
    """Real files whose calls named in `errors` fail with an errno."""

    def __init__(self, **errors: int) -> None:
        super().__init__()
        self.errors = errors

    def __getattribute__(self, name: str) -> Any:
        if name in SimulatedDisk.CALLS and (number := self.errors.get(name)):
            raise OSError(number, os.strerror(number), name)
        return super().__getattribute__(name)


class Base:
    """A base folder with a journal, an index and a tree, all in this process."""

    def __init__(self, path: Path, segment_bytes: int = 1 << 16) -> None:
        self.path = path
        (path / ".stored").mkdir(parents=True, exist_ok=True)
        self.folder = JournalFolder(path / ".stored" / "journal")
        self.base_dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.stored_dir = os.open(path / ".stored", os.O_RDONLY | os.O_DIRECTORY)
        self.folders = Folders(self.base_dir, self.stored_dir, self.folder.fd)
        self.journal = self.folder.open(segment_bytes=segment_bytes, first_segment_bytes=segment_bytes)
        self.index_path = str(path / ".stored" / INDEX_NAME)
        self.index = IndexWriter(self.index_path, self.folder.reader(), self.journal.store)
        self.reader = self.folder.reader()
        self.database = connect(self.index_path, read_only=True)
        self.listings = ListingCache(1 << 20)
        self.tree: TreeWriter | None = None

    def store(self, *values: tuple[Kind, dict[str, Any] | bytes], flags: int = 0) -> int:
        """Journal values as one entry, and index them; the first position."""
        items = [Record(kind, flags, v if isinstance(v, bytes) else dumps(v)) for kind, v in values]
        (first,) = self.journal.append([Append(NO_SESSION, 0, items)])
        self.follow()
        return first

    def new_entries(self) -> list[Entry]:
        """Entries that the index has not taken up yet."""
        return list(self.reader.entries(self.index.place, self.journal.mark))

    def follow(self) -> None:
        """Bring the index up to the end of the journal."""
        self.index.apply(self.new_entries())

    def ask(self, op: str, **arguments: Any) -> tuple[Any, dict[str, object]]:
        """A read: its answer, and the fields of its header."""
        checked = check_arguments(op, arguments)
        source = Source(self.database, self.reader, self.listings)
        answer = queries.OPERATIONS[op](source, checked)
        return json.loads(b"".join(answer.pieces)), answer.fields

    def walk(self, op: str, limit: int, **arguments: Any) -> list[Any]:
        """All items of a listing, read page by page through its cursor as a client would."""
        items: list[Any] = []
        after: dict[str, Any] = {}
        for _ in range(10_000):
            page, fields = self.ask(op, limit=limit, **arguments, **after)
            assert len(page) <= limit
            items += page
            if fields.get("next") is None:
                return items
            after = {"after": json.loads(json.dumps(fields["next"]))}
        raise AssertionError("the listing does not end")

    def open_tree(self, files: FileSystem | None = None, ways: FileSystemFeatures = ALL_WAYS) -> TreeWriter:
        """Start the tree's writer as its process would."""
        tree = TreeWriter(
            DataDir(str(self.path), files or FileSystem(), self.folders),
            self.database,
            self.reader,
            self.journal.store,
            TreeOptions(features=ways),
        )
        place = self.reader.seek(tree.position, self.index.place)
        tree.plan_replay(self.reader.entries(place, self.index.place))
        self.tree = tree
        return tree

    def grow(self, tree: TreeWriter, *, slice_: int = 1000) -> None:
        """Bring a tree up to the end of the index, a few entries at a time."""
        place = self.reader.seek(tree.position, self.index.place)
        entries = list(self.reader.entries(place, self.index.place))
        for i in range(0, len(entries), slice_):
            tree.apply(entries[i : i + slice_])

    def files(self) -> dict[str, bytes]:
        """All files of the tree by their path."""
        found = (self.path / "jobs").rglob("*")
        return {
            str(p.relative_to(self.path)): p.read_bytes() for p in found if p.is_file() and not p.is_symlink()
        }


def set_query_limit(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Change a bound of the queries in every module that uses it."""
    modules = [m for m in (event_queries, listings, queries, source_module) if hasattr(m, name)]
    assert modules
    for module in modules:
        monkeypatch.setattr(module, name, value)
