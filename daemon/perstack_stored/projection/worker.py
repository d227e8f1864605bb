"""A worker process: it keeps one projection, index or tree, in step with the journal.

It reads the journal's files itself, never past the position that the server sent, and has its own cursor. It
may die at any moment: the server starts it again, and it goes on from the cursor.
"""

import os
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import msgspec
import structlog

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.datadir.layout import DataDir, FileSystemFeatures, TreeModes, open_folders
from perstack_stored.datadir.shown_syncs import showing_syncs
from perstack_stored.errors import (
    DamageError,
    IndexUnusableError,
    NewerFormatError,
    Refusal,
    StoredError,
    TreeUnsyncedError,
)
from perstack_stored.index.connection import connect_worker, is_damage
from perstack_stored.index.disk_reserve import DiskReserve
from perstack_stored.index.retention import JournalTimes
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.observe import log
from perstack_stored.process import interpreter
from perstack_stored.process.parent_death import die_with
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.projection.index_projection import IndexOpening, IndexProjection
from perstack_stored.projection.tree_projection import TREE_IDLE_SECONDS, TreeProjection, log_blocked
from perstack_stored.projection.worker_config import WorkerConfig
from perstack_stored.tree import blocked, left_out
from perstack_stored.tree.blocked_sync import BlockedRecords
from perstack_stored.tree.helper import ParallelWriter, Slice, serve
from perstack_stored.tree.options import TreeOptions, umask_for
from perstack_stored.tree.sweep import Sweep, SweepOptions
from perstack_stored.tree.writer import TreeWriter

from .channel import Report, WorkerChannel

FAULT_RETRY_SECONDS = 1.0
WAIT_SECONDS = 0.5
FINISH_SECONDS = 3.0
_LOOK_SECONDS = 1.0  # how often files of segments that were packed are let go
WORKER_MODULE = __name__
DAMAGE_STATUS = 3
INDEX_STATUS = 4
"""Exit status: the index can't be used any more, and must be rebuilt."""
CRASH_STATUS = 5
"""Exit status: an unexpected error, as by one record."""

_log = structlog.get_logger()


def help_with(tree: TreeWriter, line: socket.socket) -> None:
    """Run as the helper of the process at the other end of the socket."""
    tree.on_blocked = log_blocked

    def write_slice(piece: Slice) -> int | None:
        try:
            return tree.write_part(piece)
        except (OSError, sqlite3.Error, StoredError) as error:  # the first process meets it as well
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
    """Follow the log positions until the server asks to finish, and all is done.

    Args:
        projection: index or tree.
        reader: of the journal.
        link: channel to the server.
        status: shows this process's progress.
        careful_until: up to this position take small steps, and name each record before it is taken.
    """
    status = status or WorkerStatus()
    while not link.mark.segment and not link.finishing:
        status.beat()
        link.wait(WAIT_SECONDS)
    projection.name_records(wanted=careful_until > 0)
    place = projection.start(reader, link.mark)
    reported = _send_report(projection, link, place, idle=False)
    idle_since = looked = time.monotonic()
    finish_by = noted = 0.0
    while True:
        status.beat()
        until = link.mark
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked = time.monotonic()
            reader.chain.drop_replaced()
        if link.finishing:
            finish_by = finish_by or time.monotonic() + FINISH_SECONDS
            if place == until or time.monotonic() > finish_by:
                break
        if 0 < projection.pending().first <= link.erased and time.monotonic() - noted > WAIT_SECONDS:
            noted = time.monotonic()
            _insist(projection, link, place, partial(projection.note_erased, link.erased), status)
            if projection.pending().deletions != reported.pending:
                reported = _send_report(projection, link, place, idle=place == until)
        if place == until:
            seconds = time.monotonic() - idle_since
            stopped = _insist(projection, link, place, partial(projection.idle, seconds), status)
            if stopped or projection.out_of_space() != reported.out_of_space:
                reported = _send_report(projection, link, place, idle=True)
            link.wait(TREE_IDLE_SECONDS)
            continue
        is_careful = place.position < careful_until
        projection.name_records(wanted=is_careful)
        size = projection.slice(until.position - place.position)
        status.read(place.position + 1)
        entries = reader.slice(place, until, *((1, 1) if is_careful else size))
        status.has_read()
        place = reader.place_after(entries[-1]) if entries else until
        _insist(projection, link, place, partial(projection.apply, entries), status)
        status.at(0)
        reported = _send_report(projection, link, place, idle=place == until)
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
    """Run a step; report an error and retry until it succeeds. Returns whether there was an error."""
    fault = ""
    while True:
        try:
            work()
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.Error) and is_damage(error):
                raise
            if str(error) != fault:
                fault = str(error)
                _log.error("projection_stopped", reason=fault, position=place.position)
            _send_report(projection, link, LogPosition(0, 0, 0), idle=False, fault=fault)
            link.wait(0)
            if link.finishing:
                raise
            status.beat()
            time.sleep(FAULT_RETRY_SECONDS)
            continue
        if fault:
            _log.info("projection_goes_on", position=place.position)
        return bool(fault)


def _send_report(
    projection: IndexProjection | TreeProjection,
    link: WorkerChannel,
    place: LogPosition,
    *,
    idle: bool,
    fault: str = "",
) -> Report:
    pending = projection.pending()
    report = Report(
        place, projection.blocked(), idle, fault, projection.out_of_space(), projection.rebuilt, *pending[:2]
    )
    link.report(report)
    return report


def _run(kind: str, config: WorkerConfig, sock: socket.socket, line: WorkerChannel) -> None:
    """Open journal and projection, and follow."""
    status = WorkerStatus() if config.status_fd < 0 else WorkerStatus.of(config.status_fd)
    status.beat()
    files = showing_syncs(status.in_sync)
    folders = open_folders(files, config.base)
    datadir = DataDir(config.base, files, folders)
    reader = JournalReader(files, folders.journal, status.beat)
    path = datadir.index_path
    store = bytes.fromhex(config.store)
    projection: IndexProjection | TreeProjection
    if kind == "index":
        projection = IndexProjection(
            path,
            reader,
            store,
            IndexOpening(config.at_rest, config.rebuild_reason),
            DiskReserve(path),
            status,
        )
    else:
        database = connect_worker(path, read_only=True, status=status)
        assists = kind == "helper"
        if not assists:
            _take_setting(datadir, store, config.leave_out)
        listed = blocked.load(files, folders.stored, store)
        options = TreeOptions(
            TreeModes(config.file_mode, config.folder_mode),
            FileSystemFeatures(config.unnamed, config.exchange),
            assists=assists,
            passed_over=(*listed.records, *config.blocked),
        )
        tree = TreeWriter(datadir, database, reader, store, options, status)
        if assists:
            help_with(tree, sock)
        tree.syncer = BackgroundSync(files.sync_all)
        helper = ParallelWriter(partial(_start_helper, config, sock.fileno()), status, config.silence_seconds)
        save = partial(blocked.save, files, folders.stored, store)
        passing = BlockedRecords(tree, save, listed, config.blocked)
        sweep_options = SweepOptions(config.keep_days, config.sweep_seconds)
        position_at = JournalTimes(database, reader).position_at
        sweep = Sweep(datadir, tree, sweep_options, position_at, lambda: line.aged_ms, helper.stop)
        projection = TreeProjection(tree, helper, passing, sweep)
    follow(projection, reader, line, status, config.careful_until)


def _take_setting(datadir: DataDir, store: bytes, types: tuple[str, ...]) -> None:
    """Note a change of `tree-leave-out` before anything is written by it."""
    before, now = left_out.take_setting(datadir.files, datadir.folders.stored, store, types)
    if now != before:
        after = now.changes[-1].after if now.changes else 0
        _log.info("tree_leaves_out", types=sorted(now.now), before=sorted(before.now), after_position=after)


def _start_helper(
    config: WorkerConfig, server_fd: int, line_fd: int, status_fd: int
) -> "subprocess.Popen[bytes]":
    """Start the tree's helper. It inherits the niceness and the lock of this worker.

    It inherits the channel to the server as well: so the server sees when both are gone.
    """
    config = msgspec.structs.replace(config, parent=os.getpid(), nice=0, status_fd=status_fd)
    arguments = msgspec.json.encode(config).decode()
    pass_fds = [line_fd, status_fd, server_fd] + ([config.lock_fd] if config.lock_fd >= 0 else [])
    return interpreter.start(WORKER_MODULE, "helper", str(line_fd), arguments, pass_fds=pass_fds)


def _ended(error: Exception) -> tuple[str, int]:
    """Return log event and exit status of a process that an error ends."""
    if isinstance(error, (DamageError, NewerFormatError)):
        return "journal_damaged", DAMAGE_STATUS
    if isinstance(error, TreeUnsyncedError):
        return "tree_unsynced", 1
    if isinstance(error, IndexUnusableError):
        return "index_unusable", INDEX_STATUS
    if isinstance(error, sqlite3.Error) and is_damage(error):
        return "index_damaged", INDEX_STATUS
    return ("index_unavailable" if isinstance(error, sqlite3.Error) else "follower_failed"), 1


def _crash(error: Exception) -> NoReturn:
    """End by an unexpected error. Its text is not logged: it may hold a piece of a value."""
    where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
    _log.critical("worker_crashed", error=type(error).__name__, at=where)
    sys.exit(CRASH_STATUS)


def main() -> None:
    """Entry point of the process; arguments: kind, descriptor of the channel, `WorkerConfig` as JSON."""
    kind, link_fd, text = sys.argv[1:]
    # Ctrl-C, systemd's stop and a closed terminal signal the whole group; the server decides when to end.
    interpreter.ignore_group_signals()
    config = msgspec.json.decode(text, type=WorkerConfig)
    die_with(config.parent)
    log.configure(json=config.log_json, level=config.log_level)
    structlog.contextvars.bind_contextvars(process=kind)
    os.nice(config.nice)
    if kind != "index":  # it makes no files for other users
        umask_for(TreeModes(config.file_mode, config.folder_mode))
    sock = socket.socket(fileno=int(link_fd))
    # Only the end of the process closes this one: a server that sees the channel close finds the exit status.
    os.dup(sock.fileno())
    line = WorkerChannel(sock)
    try:
        _run(kind, config, sock, line)
    except Refusal as error:
        _crash(error)  # a stored value is not accepted any more
    except (OSError, sqlite3.Error, StoredError) as error:
        event, status = _ended(error)
        (_log.critical if status == DAMAGE_STATUS else _log.error)(event, reason=str(error))
        if kind != "helper":
            line.report(Report(LogPosition(0, 0, 0), 0, idle=False, fault=str(error)))
        sys.exit(status)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server must learn at which record
        _crash(error)
