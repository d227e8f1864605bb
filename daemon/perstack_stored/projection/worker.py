"""A worker process: it keeps one projection, index or tree, in step with the journal.

It reads the journal's files itself, never past the position that the server sent, and has its own cursor. It
may die at any moment: the server starts it again, and it goes on from the cursor.
"""

import ctypes
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple, NoReturn

import msgspec
import structlog

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, FileSystemFeatures, TreeModes, open_folders
from perstack_stored.errors import (
    DamageError,
    IndexUnusableError,
    NewerFormatError,
    Refusal,
    StoredError,
    TreeUnsyncedError,
)
from perstack_stored.index import writer as index
from perstack_stored.index.disk_reserve import DiskReserve
from perstack_stored.index.file_watch import FileWatch
from perstack_stored.index.page_checksums import verify_at_rest
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition
from perstack_stored.observe import log
from perstack_stored.process import interpreter
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree import blocked
from perstack_stored.tree.blocked import BlockedRecord
from perstack_stored.tree.blocked_sync import BlockedRecords
from perstack_stored.tree.helper import HELPED_LAG_RECORDS, ParallelWriter, Slice, serve
from perstack_stored.tree.helper import IDLE_SECONDS as HELPER_IDLE_SECONDS
from perstack_stored.tree.writer import TreeOptions, TreeWriter, Write, umask_for

from .channel import Report, WorkerChannel

INDEX_SLICE = (2048, 4 << 20)  # records, bytes
TREE_SLICE = (256, 4 << 20)
TREE_SLICE_HELPED = (1024, 16 << 20)
TREE_IDLE_SECONDS = 0.5
FAULT_RETRY_SECONDS = 1.0
WAIT_SECONDS = 0.5
FINISH_SECONDS = 3.0
FOLLOWER_MODULE = __name__
DAMAGE_STATUS = 3
INDEX_STATUS = 4
"""The index can't be used any more, and is to be made anew."""
CRASH_STATUS = 5
"""An error that nobody expected, as by one record."""
SILENCE_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger()


class WorkerConfig(msgspec.Struct):
    """What a follower is told on its command line, as JSON."""

    base: str
    store: str
    file_mode: int
    folder_mode: int
    nice: int
    log_json: bool
    log_level: str
    parent: int
    unnamed: bool = True  # see `tree.Ways`
    exchange: bool = True
    lock_fd: int = -1
    at_rest: bool = False  # nobody has had the index open since the last daemon ended
    anew: str = ""  # why the index is not to be used, but made anew
    status_fd: int = -1
    silence_seconds: float = SILENCE_SECONDS
    careful_until: int = 0  # the process before died: small steps up to here, each record named
    blocked: tuple[BlockedRecord, ...] = ()  # to be passed over from now on


class IndexOpening(NamedTuple):
    """What is known of an index before it is opened.

    Attributes:
        at_rest: no process has had it open since the last daemon ended.
        rebuild_reason: why the index that is there is not used; empty if it is.
    """

    at_rest: bool = False
    rebuild_reason: str = ""


class IndexProjection:
    """The index. What makes it unusable makes it be built anew."""

    def __init__(
        self,
        path: str,
        reader: JournalReader,
        store: bytes,
        opening: IndexOpening = IndexOpening(),  # noqa: B008 - it can't be changed
        reserve: DiskReserve | None = None,
        status: WorkerStatus | None = None,
    ) -> None:
        """Open the index, or build it.

        Args:
            path: of the index.
            reader: of the journal.
            store: the journal's identity.
            opening: what is known of the index that is there.
            reserve: room that is kept for it.
            status: where this process shows its progress.
        """
        self._reserve = reserve
        beat = (status or WorkerStatus()).beat
        self.rebuilt = False
        try:
            if opening.rebuild_reason:
                raise IndexUnusableError(opening.rebuild_reason)
            if opening.at_rest:
                verify_at_rest(path, beat)
            self._index = IndexWriter(path, reader, store, status)
        except IndexUnusableError as error:
            _log.warning("index_rebuilt", reason=str(error))
            index.remove(path)
            self._index = IndexWriter(path, reader, store, status)
            self.rebuilt = True
        self._watch = FileWatch(path, lambda: self._index.checkpoints)

    def name_records(self, *, wanted: bool) -> None:
        """Whether each record is named before it is taken up."""
        self._index.names_records = wanted

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """The place from which to go on."""
        place = self._index.place
        end = reader.chain.end_of(place.segment)
        # Recovery wrote records again, and the place lies in what is void now.
        return place if end is None or place.offset <= end else reader.seek(place.position, mark)

    def slice(self, _lag: int, /) -> tuple[int, int]:
        """Records and bytes to take up at a time, where it lags so many records behind."""
        return INDEX_SLICE

    def apply(self, entries: list[Entry]) -> None:
        """Take up a slice of entries; raises OSError or OperationalError where trying again may help."""
        with self._watch.writing():
            if self._reserve is not None:
                self._reserve.keep()
            # Tried again, maybe, because only what came behind the transaction failed.
            position = self._index.place.position
            self._index.apply([entry for entry in entries if entry.header.position > position])

    def idle(self, _seconds: float, /) -> None:
        """Nothing to write: each transaction is complete."""
        with self._watch.writing():
            if self._reserve is not None:
                self._reserve.keep()

    def short(self) -> bool:
        """Whether the disk has no room for more."""
        return self._reserve is not None and self._reserve.short

    def blocked(self) -> int:
        """How many files could not be had."""
        return 0

    def close(self) -> None:
        """Make durable what was done, and end."""
        self._watch.check()
        self._index.close()


class TreeProjection:
    """The tree. It follows the index, which numbers the events that would share a file."""

    rebuilt = False

    def __init__(
        self, tree: TreeWriter, helper: ParallelWriter | None = None, passing: BlockedRecords | None = None
    ) -> None:
        self._tree = tree
        self._helper = helper
        self._passing = passing or BlockedRecords(tree, lambda _records: None)
        self._lags = False
        tree.on_blocked = log_blocked

    def name_records(self, *, wanted: bool) -> None:
        """Whether each record is named before it is written."""
        self._tree.names_records = wanted

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """The place from which to go on."""
        self._passing.begin(mark)
        place = reader.seek(self._tree.position, mark)
        self._tree.plan_replay(reader.entries(place, mark))
        return place

    def slice(self, lag: int) -> tuple[int, int]:
        """Records and bytes to take up at a time, where it lags so many records behind."""
        self._lags = lag > HELPED_LAG_RECORDS
        return TREE_SLICE_HELPED if self._lags else TREE_SLICE

    def apply(self, entries: list[Entry]) -> None:
        """Take up a slice of entries; raises OSError or OperationalError where trying again may help."""
        self._tree.apply(entries, self._helper if self._lags else None)
        self._passing.keep()

    def idle(self, seconds: float) -> None:
        """There has been nothing to do for so long."""
        if seconds >= TREE_IDLE_SECONDS:
            self._tree.sync(clean=True)
        if self._helper is not None and seconds >= HELPER_IDLE_SECONDS:
            self._helper.stop()

    def blocked(self) -> int:
        """How many files could not be had."""
        helped = 0 if self._helper is None else self._helper.blocked
        return self._tree.blocked + helped + len(self._tree.passed_over)

    def short(self) -> bool:
        """Of the tree nobody waits for room."""
        return False

    def close(self) -> None:
        """Make durable what was done, and end."""
        if self._helper is not None:
            self._helper.stop()
        self._tree.sync(clean=True)
        self._tree.close()


def log_blocked(write: Write, error: OSError) -> None:
    """Say which file of the tree could not be had."""
    _log.error(
        "tree_file_blocked",
        position=write.position,
        file="/".join((*write.folders, write.name)),
        reason=str(error),
    )


def help_with(tree: TreeWriter, line: socket.socket) -> None:
    """Be the helper of the process at the other end of the line."""
    tree.on_blocked = log_blocked

    def write_slice(piece: Slice) -> int | None:
        try:
            return tree.write_part(piece)
        except (OSError, sqlite3.Error, StoredError) as error:  # the other one meets it as well
            _log.warning("tree_help_failed", reason=str(error))
            return None

    serve(line, write_slice)


def follow(
    projection: IndexProjection | TreeProjection,
    reader: JournalReader,
    link: WorkerChannel,
    status: WorkerStatus | None = None,
    careful_until: int = 0,
) -> None:
    """Follow the marks until the server has said that it is finishing, and all is done.

    Args:
        projection: what is kept in step.
        reader: of the journal.
        link: to the server.
        status: where this process shows its progress.
        careful_until: up to this position go in small steps, and name each record before it is taken up.
    """
    status = status or WorkerStatus()
    while not link.mark.segment and not link.finishing:
        status.beat()
        link.wait(WAIT_SECONDS)
    projection.name_records(wanted=careful_until > 0)
    place = projection.start(reader, link.mark)
    told = _tell(projection, link, place, idle=False)
    idle_since = time.monotonic()
    finish_by = 0.0
    while True:
        status.beat()
        until = link.mark
        if link.finishing:
            finish_by = finish_by or time.monotonic() + FINISH_SECONDS
            if place == until or time.monotonic() > finish_by:
                break
        if place == until:
            seconds = time.monotonic() - idle_since
            stopped = _insist(projection, link, place, partial(projection.idle, seconds), status)
            if stopped or projection.short() != told.short:
                told = _tell(projection, link, place, idle=True)
            link.wait(TREE_IDLE_SECONDS)
            continue
        is_careful = place.position < careful_until
        projection.name_records(wanted=is_careful)
        size = projection.slice(until.position - place.position)
        status.read(place.position + 1)
        entries = _slice(reader.entries(place, until), *((1, 1) if is_careful else size))
        status.has_read()
        place = reader.behind(entries[-1]) if entries else until
        _insist(projection, link, place, partial(projection.apply, entries), status)
        status.at(0)
        told = _tell(projection, link, place, idle=place == until)
        idle_since = time.monotonic()
        link.wait(0)
    projection.close()


def _insist(
    projection: IndexProjection | TreeProjection,
    link: WorkerChannel,
    place: LogPosition,
    work: Callable[[], None],
    status: WorkerStatus,
) -> bool:
    """Do a piece of work; what stops it is reported, and tried again until it is gone. Whether it was."""
    fault = ""
    while True:
        try:
            work()
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.Error) and index.is_damage(error):
                raise
            if str(error) != fault:
                fault = str(error)
                _log.error("projection_stopped", reason=fault, position=place.position)
            _tell(projection, link, LogPosition(0, 0, 0), idle=False, fault=fault)
            link.wait(0)
            if link.finishing:
                raise
            status.beat()
            time.sleep(FAULT_RETRY_SECONDS)
            continue
        if fault:
            _log.info("projection_goes_on", position=place.position)
        return bool(fault)


def _tell(
    projection: IndexProjection | TreeProjection,
    link: WorkerChannel,
    place: LogPosition,
    *,
    idle: bool,
    fault: str = "",
) -> Report:
    report = Report(place, projection.blocked(), idle, fault, projection.short(), projection.rebuilt)
    link.report(report)
    return report


def _slice(entries: Iterator[Entry], records_max: int, bytes_max: int) -> list[Entry]:
    taken: list[Entry] = []
    records = size = 0
    for entry in islice(entries, records_max):
        taken.append(entry)
        records += entry.header.count
        size += entry.header.length
        if records >= records_max or size >= bytes_max:
            break
    return taken


def die_with(parent: int) -> None:
    """A follower must not outlive its server: the next one would write beside it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _run(kind: str, told: WorkerConfig, sock: socket.socket, line: WorkerChannel) -> None:
    """Open what there is to follow and to write, and follow."""
    status = WorkerStatus() if told.status_fd < 0 else WorkerStatus.of(told.status_fd)
    status.beat()
    files = _files_showing(status)
    folders = open_folders(files, told.base)
    datadir = DataDir(told.base, files, folders)
    reader = JournalReader(files, folders.journal, status.beat)
    path = datadir.index_path
    store = bytes.fromhex(told.store)
    projection: IndexProjection | TreeProjection
    if kind == "index":
        projection = IndexProjection(
            path,
            reader,
            store,
            IndexOpening(told.at_rest, told.anew),
            DiskReserve(path),
            status,
        )
    else:
        database = index.connect_worker(path, read_only=True, status=status)
        assists = kind == "helper"
        listed = blocked.load(files, folders.stored, store)
        options = TreeOptions(
            TreeModes(told.file_mode, told.folder_mode),
            FileSystemFeatures(told.unnamed, told.exchange),
            assists=assists,
            passed_over=(*listed.records, *told.blocked),
        )
        tree = TreeWriter(datadir, database, reader, store, options, status)
        if assists:
            help_with(tree, sock)
        tree.syncer = BackgroundSync(files.sync_all)
        helper = ParallelWriter(partial(_start_helper, told, sock.fileno()), status, told.silence_seconds)
        save = partial(blocked.save, files, folders.stored, store)
        projection = TreeProjection(tree, helper, BlockedRecords(tree, save, listed, told.blocked))
    follow(projection, reader, line, status, told.careful_until)


def _files_showing(status: WorkerStatus) -> FileSystem:
    """Files whose syncs can be seen from outside: the disk may take long for one."""

    def showing(call: Callable[[int], None]) -> Callable[[int], None]:
        def shown(fd: int) -> None:
            with status.in_sync():
                call(fd)

        return shown

    files = FileSystem()
    for name in ("sync_data", "sync", "sync_all"):
        setattr(files, name, showing(getattr(files, name)))
    return files


def _start_helper(
    told: WorkerConfig, server_fd: int, line_fd: int, status_fd: int
) -> "subprocess.Popen[bytes]":
    """Start the tree's helper. It has our niceness, and the lock.

    It has our end of the line to the server open as well: so the server sees that both of us are gone.
    """
    told = msgspec.structs.replace(told, parent=os.getpid(), nice=0, status_fd=status_fd)
    arguments = msgspec.json.encode(told).decode()
    kept = [line_fd, status_fd, server_fd] + ([told.lock_fd] if told.lock_fd >= 0 else [])
    return interpreter.start(FOLLOWER_MODULE, "helper", str(line_fd), arguments, pass_fds=kept)


def _ended(error: Exception) -> tuple[str, int]:
    """Event for the log, and exit status, of a process that an error ends."""
    if isinstance(error, (DamageError, NewerFormatError)):
        return "journal_damaged", DAMAGE_STATUS
    if isinstance(error, TreeUnsyncedError):
        return "tree_unsynced", 1
    if isinstance(error, IndexUnusableError):
        return "index_unusable", INDEX_STATUS
    if isinstance(error, sqlite3.Error) and index.is_damage(error):
        return "index_damaged", INDEX_STATUS
    return ("index_unavailable" if isinstance(error, sqlite3.Error) else "follower_failed"), 1


def _crash(error: Exception) -> NoReturn:
    """End by an error that nobody expected. Its text is not logged: it may hold a piece of a value."""
    where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
    _log.critical("worker_crashed", error=type(error).__name__, at=where)
    sys.exit(CRASH_STATUS)


def main() -> None:
    """Entry of the process: kind, descriptor of the link, and the place as JSON."""
    kind, link_fd, text = sys.argv[1:]
    # Ctrl-C, systemd's stop and the end of a terminal reach the whole group; the server decides when we end.
    interpreter.ignore_group_signals()
    told = msgspec.json.decode(text, type=WorkerConfig)
    die_with(told.parent)
    log.configure(json=told.log_json, level=told.log_level)
    structlog.contextvars.bind_contextvars(process=kind)
    os.nice(told.nice)
    if kind != "index":  # it makes nothing that is for others
        umask_for(TreeModes(told.file_mode, told.folder_mode))
    sock = socket.socket(fileno=int(link_fd))
    # Only the end of the process closes this one: the server that sees the line closed finds the exit status.
    os.dup(sock.fileno())
    line = WorkerChannel(sock)
    try:
        _run(kind, told, sock, line)
    except Refusal as error:
        _crash(error)  # a value that was stored is not accepted any more
    except (OSError, sqlite3.Error, StoredError) as error:
        event, status = _ended(error)
        (_log.critical if status == DAMAGE_STATUS else _log.error)(event, reason=str(error))
        if kind != "helper":
            line.report(Report(LogPosition(0, 0, 0), 0, idle=False, fault=str(error)))
        sys.exit(status)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server must learn at which record
        _crash(error)
