"""What `status` finds out about a base: lock, answers of the daemon, disk and backups. It only reads."""

import contextlib
import os
import time

import msgspec

from perstack_storage import Client, DaemonUnavailable, StorageError
from perstack_storage.protocol import EndpointError, resolve_endpoint
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, STORED_NAME, TOP, not_yours
from perstack_stored.datadir.lock import Holder, holder_of
from perstack_stored.errors import StoredError
from perstack_stored.observe.health import why_unready
from perstack_stored.offline.backup.generations import newest
from perstack_stored.offline.backup.manifest import Manifest, open_folder, read_manifest

from .status_report import Backup, Disk, Hello, Process, Rates, Report, Stats

RATE_SECONDS = 1.0
_STOPPED_STATES = ("T", "t")
_START_TIME_FIELD = 19  # of /proc/PID/stat, counted from the state


def look(base: str, endpoint: str | None, backups: str | None, timeout_seconds: float) -> Report:
    """Find out about a base. Takes the timeout and a second at most, beside the disk.

    Args:
        base: absolute path.
        endpoint: of its daemon; None to find it.
        backups: folder of a backup, or of several; None for that of the installed unit, if it is there.
        timeout_seconds: how long to wait for each answer.
    """
    report = Report(base=base)
    barred = _look_at_lock(report)
    if report.running is not False:
        _find_endpoint(report, endpoint)
        if report.endpoint:
            _ask(report, timeout_seconds)
    if barred and report.daemon is None:
        # Of the client's sentence only what happened: another user would help.
        report.reason = ", and there is ".join(filter(None, (barred, report.reason.partition(";")[0])))
    report.healthy = not report.reason
    with contextlib.suppress(OSError):
        report.disk = _disk(base)
    _look_at_backups(report, backups)
    return report


# --- the lock --------------------------------------------------------------------------------------


def _look_at_lock(report: Report) -> str:
    """Fill in who holds the base. Returns why this user can't tell, or ""."""
    try:
        stored = os.open(
            os.path.join(report.base, STORED_NAME),
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
        )
        try:
            holder = holder_of(stored)
        finally:
            os.close(stored)
    except PermissionError as error:
        return str(not_yours(report.base, error))
    except FileNotFoundError:
        report.running, report.reason = False, "not running: this folder is no base, or does not exist"
        return ""
    except OSError as error:
        return f"the lock of the base can't be looked at: {error.strerror}"
    report.running = holder is not None and holder.is_daemon
    if holder is None:
        report.reason = "not running: no process holds the base"
    else:
        report.process = _process(holder)
        if not report.running:
            report.reason = f"not running: `{holder.role}` with process id {holder.pid} holds the base"
    report.endpoint = holder.endpoint if holder else ""
    return ""


def _process(holder: Holder) -> Process | None:
    """What /proc says of the holder; None if it is not known which process that is."""
    if not holder.pid:
        return None
    try:
        with open(f"/proc/{holder.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(") ")[2].split()
        with open("/proc/uptime", encoding="ascii") as file:
            uptime = float(file.read().split()[0])
        age = uptime - int(fields[_START_TIME_FIELD]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return Process(holder.role, holder.pid, None, is_stopped=False)
    return Process(
        holder.role, holder.pid, int((time.time() - age) * 1000), is_stopped=fields[0] in _STOPPED_STATES
    )


# --- the daemon's answers --------------------------------------------------------------------------


def _find_endpoint(report: Report, given: str | None) -> None:
    try:
        report.endpoint = given or report.endpoint or resolve_endpoint(None, report.base)
    except EndpointError as error:
        report.reason = str(error)


def _ask(report: Report, timeout_seconds: float) -> None:
    """Fill in what the daemon answers, and why it is not healthy."""
    began = time.monotonic()
    try:
        with Client(report.endpoint, timeout_s=timeout_seconds) as client:
            hello = msgspec.convert(client.hello(), Hello)
            report.answer_seconds = round(time.monotonic() - began, 4)
            if hello.base != report.base:
                report.reason = f"the daemon at {report.endpoint} serves another base: {hello.base}"
                return
            report.running, report.daemon = True, hello
            before, at = msgspec.convert(client.stats(), Stats), time.monotonic()
            report.stats = before
            time.sleep(RATE_SECONDS)
            asked = time.monotonic()
            report.stats = now = msgspec.convert(client.stats(), Stats)
            # The judgement of /readyz; an answer shows that the loop turned while it was awaited.
            report.reason = why_unready(
                time.monotonic() - asked, now.index.fault, tree_is_whole=now.tree.whole
            )
            report.rates = _rates(before, now, asked - at)
    except DaemonUnavailable as error:
        report.reason = _silent(report, error)
    except msgspec.ValidationError:
        report.reason = f"what answers at {report.endpoint} is no daemon of this program"
    except StorageError as error:
        report.reason = str(error)


def _silent(report: Report, error: DaemonUnavailable) -> str:
    process = report.process
    if process is None or error.endpoint != report.endpoint:
        return str(error)
    if process.is_stopped:
        return f"its process is stopped by a signal; `kill -CONT {process.pid}` resumes it"
    path = report.endpoint.removeprefix("ipc://")
    if path.startswith("/") and not os.path.exists(path):
        return "it holds the base, and does not listen yet, or no more: it starts or stops"
    return f"{str(error).partition(';')[0]}: it starts, stops or hangs; its log says more"


def _rates(before: Stats, now: Stats, seconds: float) -> Rates:
    seconds = max(seconds, 1e-3)
    reads = None
    if before.reads.answered is not None and now.reads.answered is not None:
        reads = round((now.reads.answered - before.reads.answered) / seconds, 1)
    return Rates(round((now.position - before.position) / seconds, 1), reads)


# --- disk and backups ------------------------------------------------------------------------------


def _disk(base: str) -> Disk:
    room = os.statvfs(base)
    disk = Disk(room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, room.f_favail)
    stored = os.path.join(base, STORED_NAME)
    with contextlib.suppress(OSError):
        sizes = _sizes(os.path.join(stored, "journal"), "")
        disk.journal_bytes, disk.journal_files = sum(sizes), len(sizes)
    with contextlib.suppress(OSError):
        disk.index_bytes = sum(_sizes(stored, INDEX_NAME))
    tree = os.path.join(base, TOP[0])
    with contextlib.suppress(OSError):
        if os.stat(tree).st_dev != os.stat(base).st_dev:
            room = os.statvfs(tree)
            disk.tree_bytes = (room.f_blocks - room.f_bfree) * room.f_frsize
            disk.tree_free_bytes = room.f_bavail * room.f_frsize
    return disk


def _sizes(folder: str, prefix: str) -> list[int]:
    sizes = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                if entry.name.startswith(prefix):
                    sizes.append(entry.stat(follow_symlinks=False).st_size)
    return sizes


def _look_at_backups(report: Report, given: str | None) -> None:
    """Fill in the newest backup. Without a folder: that of the installed timer, where it can be read."""
    path = given or f"{os.path.dirname(report.base)}.backups"
    if given is None and not os.path.isdir(path):
        return
    files = FileSystem()
    try:
        with open_folder(files, path, make=False) as folder:
            manifest, name = read_manifest(folder), newest(folder)
        if manifest is None and name is not None:
            path = os.path.join(path, name)
            with open_folder(files, path, make=False) as folder:
                manifest = read_manifest(folder)
    except (StoredError, OSError) as error:
        report.notes.append(f"backups: {error}")
        return
    if manifest is None:
        report.notes.append(f"backups: {path} holds no complete one")
    else:
        report.backup = _backup(report, path, manifest)


def _backup(report: Report, path: str, manifest: Manifest) -> Backup:
    if report.daemon is not None and report.daemon.store != manifest.store:
        report.notes.append(f"backups: {path} is of another history than the one that is served")
    return Backup(path, manifest.timeMs, manifest.position, manifest.store)
