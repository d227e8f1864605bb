"""Errors of the daemon. All have one base class; those sent to a client have a code of the protocol."""

import errno
import os

from perstack_storage.protocol import RETRYABLE, ErrorCode


class StoredError(Exception):
    """Base of every error that the daemon raises on purpose."""

    exit_status = 1
    """Exit status of the daemon: 1, or 78 (EX_CONFIG) if another start would end the same way."""


class Refusal(StoredError):  # noqa: N818 - an answer, as the protocol has it
    """A request is answered with an error, and none of it is stored. Raised by any check."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        field: str | None = None,
        *,
        retry_after_ms: int | None = None,
        item: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.item = item
        self.position = position

    def alone(self) -> "Refusal":
        """This error without its traceback, to be kept: a traceback keeps all frames that it came through.

        Such frames, with a whole request for example, would form a cycle with the error until a garbage
        collection.
        """
        self.__context__ = None
        return self.with_traceback(None)

    def as_dict(self) -> dict[str, object]:
        """The error object of wire.md, section 5."""
        error: dict[str, object] = {"code": self.code.value, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        error["retryable"] = RETRYABLE[self.code]
        if self.retry_after_ms is not None:
            error["retryAfterMs"] = self.retry_after_ms
        if self.item is not None:
            error["item"] = self.item
        if self.position is not None:
            error["position"] = self.position
        return error


class ConfigError(StoredError):
    """A setting or the environment is not usable. The message says which and why."""

    exit_status = 78


class StartFailedError(StoredError):
    """The disk failed or was full during the start. Another start may succeed."""


# Errors of the system that only a person can correct. All others may pass: no room, no descriptors,
# no memory, a disk that fails, an address that the machine does not have yet.
_NEEDS_A_PERSON = frozenset(
    {
        errno.EACCES,
        errno.EADDRINUSE,  # two services have one address in their settings
        errno.EAFNOSUPPORT,
        errno.EBADF,
        errno.EEXIST,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSYS,
        errno.ENOTDIR,
        errno.ENOTSOCK,
        errno.ENXIO,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTONOSUPPORT,
        errno.EROFS,
        errno.EXDEV,
    }
)


def start_error(sentence: str, error: Exception) -> ConfigError | StartFailedError:
    """Return the error of a start that a failed system call ends.

    Args:
        sentence: the step that failed.
        error: an OSError or a ZMQError.
    """
    number = getattr(error, "errno", None)
    kind = ConfigError if number in _NEEDS_A_PERSON else StartFailedError
    text = os.strerror(number) if isinstance(error, OSError) and number else str(error)
    return kind(f"{sentence}: {text}")


class BaseHeldError(StoredError):
    """Another process holds the base. Raised at start; stop that process or use another base."""


class StorageFullError(StoredError):
    """The disk has no room for the next records. Nothing was written; the caller may try again."""


class JournalFailedError(StoredError):
    """A write or sync of the journal failed. The process must end: what is on disk is unknown."""


class StreamFailedError(StoredError):
    """The replicated log lacks a message, or has another history. The process must end: none is skipped."""

    exit_status = 78


class GateFailedError(StoredError):
    """The ZAP handler failed. The process must end: clients can't be authenticated."""


class TreeUnsyncedError(StoredError):
    """Files of the tree may not be on disk. Its process must end: the next one checks them again."""


class NewerFormatError(StoredError):
    """The journal holds entries that only a newer version of the program can read. Nothing is changed."""

    exit_status = 78


class IndexUnusableError(StoredError):
    """The index is damaged, of another version, or of another journal. It must be removed and rebuilt."""


class LostEndError(StoredError):
    """Records that were on disk are missing at the end of the journal. Nothing is changed; see `repair`."""

    exit_status = 78


class DamageError(StoredError):
    """Bytes of the journal that were proven to be on disk have changed. Nothing is deleted."""

    exit_status = 78

    def __init__(self, segment: str, offset: int, position: int, reason: str) -> None:
        super().__init__(
            f"damage in journal segment {segment} at offset {offset}, position {position}: {reason}."
            " `perstack-stored repair --dry-run` reports what can be restored; without it the repair is done"
        )
        self.segment = segment
        self.offset = offset
        self.position = position
        self.reason = reason
