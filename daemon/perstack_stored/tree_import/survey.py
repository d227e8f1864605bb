"""Surveys an existing tree: checks every file, and plans the valid ones in their right place.

It changes nothing, and follows no link.
"""

import errno
import stat
import time
from collections import Counter
from enum import StrEnum

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import Refusal
from perstack_stored.model import names, value_check, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.values import Value
from perstack_stored.progress import Working, no_progress
from perstack_stored.tree.write import event_name

from .plan import Path, Plan, digest_of, kind_of, order_of

VALUE_BYTES_MAX = 256 << 20
PROGRESS_SECONDS = 2.0
# Errors that are not about one file: going on would skip all the others as well.
_OUR_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_log = structlog.get_logger()


class Reason(StrEnum):
    """Why a file is skipped."""

    EMPTY = "empty"
    NOT_JSON = "not_json"
    BAD_VALUE = "bad_value"
    WRONG_PLACE = "wrong_place"
    LINK = "link"
    NOT_A_FILE = "not_a_file"
    NOT_OURS = "not_ours"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"


class SkipError(Exception):
    """The file is not imported, and does not change."""

    def __init__(self, reason: Reason, detail: str, payload: bytes | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.payload = payload  # if the content is the reason


class Account:
    """Counts of a survey and an import. Logs skipped files by name."""

    def __init__(self, working: Working = no_progress) -> None:
        self._working = working
        self.files = 0
        self.imported: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._last_reported = time.monotonic()

    def skip(self, path: Path, skip: SkipError) -> None:
        """Count and log a file that is not imported."""
        self.skipped[skip.reason.value] += 1
        _log.warning("import_file_skipped", file="/".join(path), reason=skip.reason.value, detail=skip.detail)

    def seen(self, path: Path, value: Value, payload: bytes) -> None:
        """Note a valid file in its place."""

    def misnamed(self, path: Path, due: str) -> None:
        """Log the file of an event whose content asks for another name."""
        _log.warning("import_name_differs", file="/".join(path), due=due)

    def progress(self, step: str, *, files: int, of: int | None = None) -> None:
        """Report progress, every `PROGRESS_SECONDS`."""
        self._working(f"importing the tree: {step}, {files} files" + (f" of {of}" if of else ""))
        now = time.monotonic()
        if now - self._last_reported < PROGRESS_SECONDS:
            return
        self._last_reported = now
        records, skipped = self.imported.total(), self.skipped.total()
        _log.info("import_progress", step=step, files=files, of=of, records=records, skipped=skipped)


class TreeSurvey:
    """Walks the tree once, in the order of the paths."""

    def __init__(self, files: FileSystem, account: Account) -> None:
        self._files = files
        self._account = account
        self._plan = Plan()

    def run(self, base_dir: int) -> Plan:
        """Return the plan for the tree of a base."""
        self._folder(base_dir, ("jobs",))
        self._plan.sort()
        return self._plan

    def _folder(self, parent: int, path: Path) -> None:
        try:
            fd = self._open(parent, path)
        except SkipError as skip:
            self._account.skip(path, skip)
            return
        try:
            self._walk(fd, path)
        finally:
            self._files.close(fd)

    def _open(self, parent: int, path: Path) -> int:
        try:
            mode = self._files.stat(path[-1], dir_fd=parent).st_mode
            if stat.S_ISLNK(mode):
                raise SkipError(Reason.LINK, "it is a link")
            if not stat.S_ISDIR(mode):
                raise SkipError(Reason.NOT_OURS, "in the tree a folder has such a name")
            return self._files.open_dir(path[-1], dir_fd=parent)
        except OSError as error:
            raise unreadable(error) from None

    def _walk(self, fd: int, path: Path) -> None:
        number = self._plan.folder(path)
        for name in sorted(self._files.list_dir(fd)):
            inner = (*path, name)
            kind = kind_of(inner)
            if kind is not None:
                self._file(fd, number, inner, kind)
            elif _is_folder(inner):
                self._folder(fd, inner)
            else:
                self._account.skip(inner, SkipError(Reason.NOT_OURS, "the tree has no such name"))

    def _file(self, folder: int, number: int, path: Path, kind: Kind) -> None:
        self._account.progress("reading", files=self._account.files)
        self._account.files += 1
        try:
            payload, written_ms = read_file(self._files, folder, path[-1])
            value = checked(kind, path, payload)
        except SkipError as skip:
            self._account.skip(path, skip)
            return
        order = order_of(path[-1], value, written_ms)
        if order.misnamed and isinstance(value, values.Event):
            due = event_name(value.timestamp, value.stepNumber, value.type, 1)
            self._account.misnamed(path, due)
        self._account.seen(path, value, payload)
        self._plan.add(number, path[-1], order, digest_of(kind, payload))


def read_file(files: FileSystem, folder: int, name: str) -> tuple[bytes, int]:
    """Content of a file, and the time of its last write in ms.

    Raises:
        SkipError: it is no regular file, is too large, or can't be read.
    """
    try:
        found = files.stat(name, dir_fd=folder)
        if stat.S_ISLNK(found.st_mode):
            raise SkipError(Reason.LINK, "it is a link")
        if not stat.S_ISREG(found.st_mode):
            raise SkipError(Reason.NOT_A_FILE, "it is not a regular file")
        if found.st_size > VALUE_BYTES_MAX:
            raise SkipError(Reason.TOO_LARGE, f"it has {found.st_size} of at most {VALUE_BYTES_MAX} bytes")
        fd = files.open(name, dir_fd=folder)
        try:
            return files.read(fd, found.st_size, 0), found.st_mtime_ns // 1_000_000
        finally:
            files.close(fd)
    except OSError as error:
        raise unreadable(error) from None


def checked(kind: int, path: Path, payload: bytes) -> Value:
    """Check the value in a file.

    Raises:
        SkipError: it can't be stored, or stands in the wrong place.
    """
    if not payload:
        raise SkipError(Reason.EMPTY, "it is empty", payload)
    try:
        value = value_check.check(kind, payload)
    except Refusal as refusal:
        reason = Reason.NOT_JSON if refusal.code is ErrorCode.BAD_JSON else Reason.BAD_VALUE
        raise SkipError(reason, refusal.message, payload) from None
    if isinstance(value, values.Job):
        due: Path = ("jobs", value.id, "job.json")
    elif isinstance(value, values.Checkpoint):
        due = ("jobs", value.jobId, "checkpoints", f"{value.id}.json")
    else:
        # An event in a file with another name is imported by its content.
        due = ("jobs", value.jobId, "runs", value.runId, path[-1])
    if due != path:
        raise SkipError(Reason.WRONG_PLACE, "the ids in it are not those of its path")
    return value


def unreadable(error: OSError) -> SkipError:
    """Return the error for one file.

    Raises:
        OSError: it is not about this file.
    """
    if error.errno in _OUR_FAULTS:
        raise error
    return SkipError(Reason.UNREADABLE, error.strerror or "it can't be read")


def _is_folder(path: Path) -> bool:
    """Whether the tree has a folder with this path."""
    match path:
        case ("jobs", name) | ("jobs", _, "runs", name):
            try:
                names.check_id(name, "jobId")
            except Refusal:
                return False
            return True
        case ("jobs", _, "checkpoints" | "runs"):
            return True
    return False
