"""What the tree leaves out, as the settings say, and the record of it.

`{base}/.stored/tree.left-out` holds each change of `tree-leave-out`, with the position after which it counts,
and up to which position jobs have left the tree by `tree-keep-days`. It is written before the first file that
it concerns. Without a valid one, the tree's cursor counts as lost: the next start writes the tree again, by
the settings of then.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem, atomic_replace, read_whole
from perstack_stored.model.checksum import crc32c

from .cursor import Cursor, forget_cursor, load_cursor

FILE_NAME = "tree.left-out"
_MAGIC = b"PSTKTLO1"
_CRC_BYTES = 4
_NOTHING: frozenset[str] = frozenset()


class Change(NamedTuple):
    """Event types that have no file if they are stored after a position, until the next change."""

    after: int
    types: frozenset[str]


class WrittenBack(NamedTuple):
    """A job that was written back into the tree, and when."""

    job: str
    time_ms: int


class LeftOut(NamedTuple):
    """What has no file, or need not have one.

    Attributes:
        changes: of the types that are left out, by position.
        jobs_until: a job that has ended, and has no record after this position, has left the tree.
        written_back: jobs that have not, whatever their last record is.
        leaving: jobs whose files are being removed.
    """

    changes: tuple[Change, ...] = ()
    jobs_until: int = 0
    written_back: tuple[WrittenBack, ...] = ()
    leaving: tuple[str, ...] = ()

    @property
    def now(self) -> frozenset[str]:
        """Types of the newest events that have no file."""
        return self.changes[-1].types if self.changes else _NOTHING

    @property
    def ever(self) -> frozenset[str]:
        """Types of which any event may have no file."""
        return frozenset[str]().union(*(change.types for change in self.changes))

    def has_event(self, position: int, type: str) -> bool:
        """Whether an event has no file."""
        for change in reversed(self.changes):
            if position > change.after:
                return type in change.types
        return False

    def changed(self, after: int, types: Iterable[str]) -> "LeftOut":
        """The same, with other types after a position. A change at the same position, or later, is void."""
        before = [change for change in self.changes if change.after < after]
        wanted = frozenset(types)
        if wanted != (before[-1].types if before else _NOTHING):
            before.append(Change(after, wanted))
        return self._replace(changes=tuple(before))


class _File(msgspec.Struct, omit_defaults=True):
    """The record as JSON: proto/tree.md describes it."""

    store: str
    changes: list[tuple[int, list[str]]] = []
    jobsUntil: int = 0  # noqa: N815 - as all JSON of the daemon
    writtenBack: list[tuple[str, int]] = []  # noqa: N815
    leaving: list[str] = []


class Loaded(NamedTuple):
    """State of a tree on disk.

    Attributes:
        cursor: counts as lost where the record of what is left out is.
        left_out: the record; nothing is left out where it is lost.
        is_damaged: there is a record that can't be read, or there is none and there should be.
    """

    cursor: Cursor
    left_out: LeftOut
    is_damaged: bool = False


def load(files: FileSystem, stored_dir: int, store: bytes) -> Loaded:
    """Load cursor and record of a tree.

    Raises:
        OSError: a file can't be read.
    """
    cursor = load_cursor(files, stored_dir, store)
    data = read_whole(files, FILE_NAME, dir_fd=stored_dir)
    found = None if data is None else decode(data)
    if found is not None and found[0] == store:
        return Loaded(cursor, found[1])
    # A record of another journal is that of a tree from before, as its cursor is.
    is_damaged = (data is not None and found is None) or cursor.leaves_out
    return Loaded(Cursor(0, clean=False, lost=True) if is_damaged else cursor, LeftOut(), is_damaged)


def decode(data: bytes) -> tuple[bytes, LeftOut] | None:
    """Identity of the journal, and record, of a file's content; None if it has changed."""
    body, crc = data[len(_MAGIC) : -_CRC_BYTES], int.from_bytes(data[-_CRC_BYTES:], "little")
    if not data.startswith(_MAGIC) or crc32c(body) != crc:
        return None
    try:
        found = msgspec.json.decode(body, type=_File)
        store = bytes.fromhex(found.store)
    except ValueError:  # msgspec's errors are such
        return None
    return store, LeftOut(
        tuple(Change(after, frozenset(types)) for after, types in found.changes),
        found.jobsUntil,
        tuple(WrittenBack(*one) for one in found.writtenBack),
        tuple(found.leaving),
    )


def save(files: FileSystem, stored_dir: int, store: bytes, left_out: LeftOut) -> None:
    """Replace the record.

    Raises:
        OSError: it can't be written; the old one stays.
    """
    changes = [(change.after, sorted(change.types)) for change in left_out.changes]
    written_back = [(one.job, one.time_ms) for one in left_out.written_back]
    body = msgspec.json.encode(
        _File(store.hex(), changes, left_out.jobs_until, written_back, list(left_out.leaving))
    )
    crc = crc32c(body).to_bytes(_CRC_BYTES, "little")
    atomic_replace(files, FILE_NAME, _MAGIC + body + crc, FILE_MODE, dir_fd=stored_dir)


def take_setting(
    files: FileSystem, stored_dir: int, store: bytes, types: Iterable[str]
) -> tuple[LeftOut, LeftOut]:
    """Note what the setting says, after the tree's cursor, before anything is written by it.

    Returns:
        What was left out, and what is now.

    Raises:
        OSError: it can't be noted.
    """
    cursor, before, is_damaged = load(files, stored_dir, store)
    # Where the cursor is lost, all is written again; what was left out before the last change still is.
    last = before.changes[-1].after if before.changes else 0
    now = before.changed(max(cursor.position, last), types) if frozenset(types) != before.now else before
    if is_damaged:
        # The cursor goes first: beside a valid record it would count again.
        forget_cursor(files, stored_dir)
    if is_damaged or now != before:
        save(files, stored_dir, store, now)
    return before, now
