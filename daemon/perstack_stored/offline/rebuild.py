"""`rebuild`: builds index and tree again from the journal, which is the record of truth.

The new index is built beside the old one and replaces it when it is complete: if the journal turns out to
be damaged, the old index stays. In the tree only files that are missing or differ are
written; nothing is removed.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, STORED_NAME, DataDir, TreeModes
from perstack_stored.datadir.probe import probe
from perstack_stored.errors import ConfigError, IndexUnusableError
from perstack_stored.index.connection import connect, remove
from perstack_stored.index.page_checksums import SUFFIX as SUMS_SUFFIX
from perstack_stored.index.page_checksums import verify_at_rest
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.recovery import Recovered
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.startup import known_position
from perstack_stored.tree import blocked
from perstack_stored.tree.blocked import BlockedRecord
from perstack_stored.tree.cursor import Cursor, save_cursor
from perstack_stored.tree.options import TreeOptions, umask_for
from perstack_stored.tree.write import Write
from perstack_stored.tree.writer import TreeWriter
from perstack_stored.tree_import import first_start

from .locked import Advance, keeping_sessions, progress, slices
from .rebuild_child import Step

_NEW_NAME = "rebuild.sqlite"


class Rebuilt(NamedTuple):
    """Result: last position, what recovery found, and the files that could not be written."""

    position: int
    recovered: Recovered
    blocked: list[tuple[str, str]]
    passed_over: list[BlockedRecord]


class Written(NamedTuple):
    """Files that could not be written, and records that were passed over."""

    blocked: list[tuple[str, str]]
    passed_over: list[BlockedRecord]


class Do(Protocol):
    """Runs a step of the rebuild, and returns its result."""

    def __call__(self, work: Callable[[Step], Any], /, *, passes_over: bool) -> Any: ...  # noqa: D102


def rebuild(
    base: DataDir,
    settings: Settings,
    *,
    index_too: bool,
    tree_too: bool,
    retries: bool = False,
    do: Do | None = None,
) -> Rebuilt:
    """Rebuild index and tree, or one of them, from the journal; all is synced when it returns.

    Args:
        base: locked by this process.
        settings: the modes of files and folders, and the size of a segment.
        index_too: rebuild the index; otherwise the existing one is brought to the end of the journal.
        tree_too: write the tree.
        retries: write again the records that the tree passes over.
        do: runs a step: in this process, or in a child that may die.

    Raises:
        ConfigError: there is no journal, the tree's import is unfinished, or the index can't be used.
        DamageError: the journal is damaged; index and tree did not change, or are further than before.
        LostEndError: the journal lost its end; nothing was changed.
        OSError: a file can't be read or written.
    """
    do = do or here
    modes = TreeModes(settings.file_mode, settings.folder_mode)
    umask_for(modes)
    recovered, store, mark = _open_and_close(base, settings)

    def make_index(step: Step) -> None:
        with _reading(base, step) as reader:
            path = base.index_path
            (_rebuild_index if index_too else _complete_index)(base, path, reader, store, mark, step)

    def make_tree(step: Step) -> Written:
        with _reading(base, step) as reader:
            return _make_tree(base, modes, reader, store, mark, step._replace(retries=retries))

    if index_too or tree_too:
        do(make_index, passes_over=False)
    written = do(make_tree, passes_over=True) if tree_too else Written([], [])
    return Rebuilt(mark.position, recovered, *written)


def here(work: Callable[[Step], Any], *, passes_over: bool) -> Any:  # noqa: ARG001 - as `in_child` has it
    """Run a step in this process."""
    return work(Step(WorkerStatus(), names_records=False, blocked=()))


@contextmanager
def _reading(base: DataDir, step: Step) -> Iterator[JournalReader]:
    reader = JournalReader(base.files, base.folders.journal, step.status.beat)
    try:
        yield reader
    finally:
        reader.close()


def _open_and_close(base: DataDir, settings: Settings) -> tuple[Recovered, bytes, LogPosition]:
    """Recover the journal, as a start of the daemon does: what is read after it is synced."""
    if not _segments(base.files, base.folders.journal):
        raise ConfigError(f"{base.path} has no journal to rebuild anything from")
    if first_start.MARKER_NAME in base.files.list_dir(base.folders.stored):
        raise ConfigError("the import of the tree was interrupted; start the daemon, which goes on with it")
    journal = JournalWriter(
        base.files,
        base.folders.journal,
        keeping_sessions(settings),
        JournalOptions(settings.segment_bytes, settings.first_segment_bytes, ahead=False),
        known_position=lambda store: known_position(base, store),
    )
    mark = journal.mark
    journal.close()
    return journal.recovered, journal.store, mark


def _segments(files: FileSystem, journal_dir: int) -> int:
    chain = Chain(files, journal_dir)
    chain.close()
    return chain.last


# --- the index -------------------------------------------------------------------------------------


def _rebuild_index(
    base: DataDir, path: str, reader: JournalReader, store: bytes, mark: LogPosition, step: Step
) -> None:
    new_path = os.path.join(base.path, STORED_NAME, _NEW_NAME)
    remove(new_path)  # of an unfinished rebuild
    try:
        new = IndexWriter(new_path, reader, store, step.status)
        new.names_records = step.names_records
        _follow(new, reader, mark)
        new.close()
    except BaseException:
        remove(new_path)
        raise
    stored = base.folders.stored
    _sync_file(base.files, _NEW_NAME, stored)
    remove(path)
    for suffix in (SUMS_SUFFIX, ""):
        base.files.rename(_NEW_NAME + suffix, INDEX_NAME + suffix, source_dir=stored, target_dir=stored)
    base.files.sync(stored)


def _complete_index(
    _base: DataDir, path: str, reader: JournalReader, store: bytes, mark: LogPosition, step: Step
) -> None:
    if not os.path.exists(path):
        raise ConfigError("there is no index to write the tree by; rebuild both")
    try:
        verify_at_rest(path)
        existing = IndexWriter(path, reader, store, step.status)
        existing.names_records = step.names_records
        if existing.place.position > mark.position:
            raise IndexUnusableError("the index is ahead of the journal")
        _follow(existing, reader, mark)
        existing.close()
    except (IndexUnusableError, sqlite3.DatabaseError) as error:
        raise ConfigError(f"{error}; rebuild both") from error


def _follow(following: IndexWriter, reader: JournalReader, mark: LogPosition) -> None:
    place = reader.seek(following.place.position, mark)
    with progress("index (records)", mark.position - place.position) as advance:
        for portion in slices(reader.entries(place, mark)):
            following.apply(portion)
            advance(_records(portion))


def _sync_file(files: FileSystem, name: str, dir_fd: int) -> None:
    fd = files.open(name, dir_fd=dir_fd)
    try:
        files.sync_data(fd)
    finally:
        files.close(fd)


# --- the tree --------------------------------------------------------------------------------------


def _make_tree(
    base: DataDir, modes: TreeModes, reader: JournalReader, store: bytes, mark: LogPosition, step: Step
) -> Written:
    """Write the tree; blocked records are saved first, so that the daemon passes over them too."""
    files, stored = base.files, base.folders.stored
    listed = blocked.load(files, stored, store)
    kept = listed.records if listed.is_current and not step.retries else ()
    save_cursor(files, stored, store, Cursor(0, clean=False))
    options = TreeOptions(modes, probe(files, base.folders, base.path), passed_over=(*kept, *step.blocked))
    with contextlib.closing(connect(base.index_path, read_only=True)) as database:
        tree = TreeWriter(base, database, reader, store, options, step.status)
        tree.names_records = step.names_records
        if step.blocked:
            blocked.save(files, stored, store, tuple(tree.passed_over.records.values()))
        could_not = _rebuild_tree(tree, reader, mark)
        passed_over = sorted(tree.passed_over.records.values(), key=lambda one: one.position)
        if passed_over or listed.records:
            blocked.save(files, stored, store, tuple(passed_over))
    return Written(could_not, passed_over)


def _rebuild_tree(tree: TreeWriter, reader: JournalReader, mark: LogPosition) -> list[tuple[str, str]]:
    """Write missing and differing files, from a cursor at 0; return the files that can't be written."""
    could_not: list[tuple[str, str]] = []

    def note(write: Write, error: OSError) -> None:
        could_not.append(("/".join((*write.folders, write.name)), error.strerror or str(error)))

    tree.on_blocked = note
    # The files may be there already, up to the end: no older version may replace one meanwhile.
    tree.replay_until = mark.position
    with progress("tree (looking ahead)", mark.position) as advance:
        tree.plan_replay(_counted(reader.entries(reader.start(), mark), advance))
    with progress("tree (records)", mark.position) as advance:
        entries = reader.entries(reader.start(), mark)
        for portion in ([entry] for entry in entries) if tree.names_records else slices(entries):
            tree.apply(portion)
            advance(_records(portion))
    tree.sync(clean=True)
    tree.close()
    return could_not


def _counted(entries: Iterator[Entry], advance: Advance) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        advance(entry.header.count)


def _records(entries: list[Entry]) -> int:
    return sum(entry.header.count for entry in entries)
