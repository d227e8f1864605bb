"""The errors of the client, and the codes of the wire (`proto/wire.md`, section 5)."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from perstack_storage._core.escape import shell_word

_PACKAGE = "perstack_storage"  # where programs import errors from: a traceback names them so


class ErrorCode(StrEnum):
    """The codes that stand in `error.code` of an answer; a newer daemon may know more."""

    BAD_FRAME = "BAD_FRAME"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    UNKNOWN_OPERATION = "UNKNOWN_OPERATION"
    FORBIDDEN = "FORBIDDEN"
    BAD_REQUEST = "BAD_REQUEST"
    BAD_JSON = "BAD_JSON"
    BAD_VALUE = "BAD_VALUE"
    TOO_LARGE = "TOO_LARGE"
    NOT_FOUND = "NOT_FOUND"
    SEQUENCE_OLD = "SEQUENCE_OLD"
    SEQUENCE_GAP = "SEQUENCE_GAP"
    BUSY = "BUSY"
    STORAGE_FULL = "STORAGE_FULL"
    DEADLINE = "DEADLINE"
    READ_GONE = "READ_GONE"
    POSITION_GONE = "POSITION_GONE"
    DELETED = "DELETED"
    CONFLICT = "CONFLICT"
    CURSOR_BACK = "CURSOR_BACK"
    STOPPING = "STOPPING"
    DAMAGED = "DAMAGED"
    INTERNAL = "INTERNAL"


_RETRYABLE_CODES = frozenset(
    {
        ErrorCode.SEQUENCE_GAP,
        ErrorCode.BUSY,
        ErrorCode.STORAGE_FULL,
        ErrorCode.DEADLINE,
        ErrorCode.READ_GONE,
        ErrorCode.STOPPING,
    }
)

RETRYABLE: Mapping[ErrorCode, bool] = {code: code in _RETRYABLE_CODES for code in ErrorCode}
"""For each code, whether the same request may succeed later."""


class StorageError(Exception):
    """The base of every error that this library raises on purpose; catch it to catch them all."""

    __module__ = _PACKAGE

    def __init_subclass__(cls) -> None:
        if cls.__module__ == __name__:
            cls.__module__ = _PACKAGE


class EndpointError(StorageError):
    """No socket can be made: the endpoint is malformed, too many files are open, or the base is too deep.

    A Unix socket of a deep base needs a private folder to put it in instead.

    Give an endpoint, or set PERSTACK_STORED_ENDPOINT or XDG_RUNTIME_DIR, for the client and the daemon alike.
    """


class OtherHistory(EndpointError):  # noqa: N818 - a state, not a mistake
    """A daemon of several does not share the history of the others; nothing of the session went to it.

    Give the endpoints of daemons that share one replicated journal, or a single endpoint. Once the client
    has met a daemon it passes over one of another history; the error of a call that fails names it.
    """


class ClosedError(StorageError):
    """The client was closed before or during the call, or a pipeline is used where it does not belong.

    Open a new client; make a pipeline in the thread and process that uses it.
    """


class ProtocolError(StorageError):
    """An answer could not be understood: another program listens there, or the daemon has a fault."""


class AnswerTooLarge(StorageError):  # noqa: N818 - a state, not a mistake
    """A daemon's answer is larger than it can be, or than a client takes: 1 GiB for a listing.

    Ask for a listing in pages, with `limit`. For a single value the daemon, or what poses as it, has a fault.
    """


class NestedTooDeeply(StorageError, ValueError):  # noqa: N818 - a state, not a mistake
    """A value has more levels of objects and arrays than a client takes, or holds itself."""


class DaemonUnavailable(StorageError):  # noqa: N818 - a state, not a mistake
    """Nobody answered within `timeout_s`, or nobody can: there is no socket. Nothing was stored.

    Start a daemon, or wait for one, and call again. A client whose endpoint was named waits for the socket.

    Attributes:
        endpoint: where an answer was waited for.
    """

    def __init__(
        self,
        endpoint: str,
        timeout_s: float,
        base: str | None = None,
        trouble: str = "",
        *,
        no_socket: bool = False,
    ) -> None:
        self.endpoint = endpoint
        why = trouble or _what_helps(endpoint, base)
        what = (
            f"no daemon at {endpoint}: there is no socket"
            if no_socket
            else f"no answer from {endpoint} within {timeout_s:g} s"
        )
        super().__init__(f"{what}; {why}")


class KeyRefused(DaemonUnavailable):
    """The daemon does not let this client in: its public key is not in the daemon's list of clients.

    Ask the operator of the daemon to add the key; nothing was stored.
    """


def _what_helps(endpoint: str, base: str | None) -> str:
    path = endpoint.removeprefix("ipc://")
    if path != endpoint:
        try:
            os.stat(path)
        except PermissionError:
            return f"this user may not enter the folder of {path}"
        except OSError:
            pass
        else:
            if not os.access(path, os.W_OK):
                return f"this user may not connect to {path}"
    return f"a daemon is started with: {start_command(endpoint, base)}"


def start_command(endpoint: str, base: str | None) -> str:
    """Returns the command that starts a daemon there; `base` is None where the endpoint was named."""
    where = f"--base-path {shell_word(base)}" if base else f"--bind {shell_word(endpoint)} --base-path ..."
    return f"perstack-stored serve {where}"


class OutcomeUnknown(StorageError):  # noqa: N818 - a state, not a mistake
    """Stores were sent and not answered within `timeout_s`: they may be stored, or not, and were given up.

    They are never sent again, and never take effect after a later store of the same thread. Read to find out,
    or store again: an event that is the same byte for byte is kept once, a job or checkpoint is overwritten.

    Attributes:
        endpoint: where an answer was waited for.
        count: number of stores concerned.
    """

    def __init__(self, endpoint: str, timeout_s: float, count: int = 1, trouble: str = "") -> None:
        self.endpoint = endpoint
        self.count = count
        what = "a store was" if count == 1 else f"{count} stores were"
        super().__init__(
            f"{what} sent to {endpoint} and not answered within {timeout_s:g} s: the outcome is unknown"
            + (f"; {trouble}" if trouble else "")
        )


class NotFlushed(StorageError, TimeoutError):  # noqa: N818 - a state, not a mistake
    """`flush` ended before everything had its outcome; nothing is given up, it goes on being stored.

    Attributes:
        count: number of stores that were outstanding.
    """

    def __init__(self, timeout_s: float, count: int) -> None:
        self.count = count
        super().__init__(f"{count} stores are still outstanding after {timeout_s:g} s")


class TooMuchOutstanding(StorageError):  # noqa: N818 - a state, not a mistake
    """A `…_nowait` store of the asyncio client came when `max_outstanding` was used up; it is not stored.

    Wait with `await client.ready()` and call again. (The synchronous client blocks instead.)
    """


class Refused(StorageError):  # noqa: N818 - the word of the protocol
    """The daemon answered that it did not carry out the request; nothing of it was stored.

    With `retryable` false the value or the program has to be mended. With `retryable` true (disk full, busy,
    stopping) the client already tried again until `timeout_s` was over; call again later.

    Attributes:
        code: an `ErrorCode`, or the word itself where this version does not know it.
        message: the daemon's sentence.
        field: the field that broke a rule, where there is one.
        retryable: whether the same request may succeed later.
        index: number of the item in its pipeline, from 0; None outside of a pipeline.
        op: the operation, e.g. `storeEvent`.
    """

    def __init__(self, error: Mapping[str, Any], *, op: str | None = None, index: int | None = None) -> None:
        code = str(error.get("code", ErrorCode.INTERNAL))
        self.code: str = ErrorCode(code) if code in ErrorCode.__members__ else code
        self.message = str(error.get("message", ""))
        self.field: str | None = error.get("field")
        self.retryable = bool(error.get("retryable", False))
        self.index = index
        self.op = op
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = "" if self.index is None else f"item {self.index} "
        what = f"{where}{self.op}" if self.op else where.strip()
        return f"{what} refused: {self.message} ({self.code})" if what else f"{self.message} ({self.code})"


class Forbidden(Refused):
    """The daemon does not let this client do that: it may only read, or is on none of the daemon's lists.

    Ask the operator of the daemon; the same call will be refused again.
    """


class Deleted(Refused):
    """A store to a job or run that was deleted after this client's session began. It is not stored.

    Stop. To begin a new job under the id, make a new client.
    """


class JobTakenOver(Refused):
    """Another session has stored for the job that was resumed; nothing was stored.

    Stop working on it, or resume it again and decide by what is there now.

    Attributes:
        position: where another session stored last, if the daemon says.
    """

    def __init__(self, error: Mapping[str, Any], *, op: str | None = None, index: int | None = None) -> None:
        position = error.get("position")
        self.position: int | None = position if type(position) is int else None
        super().__init__(error, op=op, index=index)


@contextmanager
def noting(error: BaseException | None, what: str) -> Iterator[None]:
    """Notes an error of the block in the one that ended what is left by it, if there is one.

    Args:
        error: what the block around this one was ended by.
        what: what failed, as the note says it.
    """
    try:
        yield
    except StorageError as problem:
        if error is None:
            raise
        error.add_note(f"and {what}: {problem}")


def refused(error: Mapping[str, Any], *, op: str | None = None, index: int | None = None) -> Refused:
    """Returns the error to raise for an error of the daemon."""
    kind = _KINDS.get(str(error.get("code")), Refused)
    return kind(error, op=op, index=index)


_KINDS: Mapping[str, type[Refused]] = {
    ErrorCode.FORBIDDEN: Forbidden,
    ErrorCode.DELETED: Deleted,
    ErrorCode.CONFLICT: JobTakenOver,
}


class PositionGone(Refused):
    """A position that this history of the daemon does not have: of `follow`, `read_all` or `as_of`.

    The base was replaced, or put back from a copy that lacks its newest records, or is a copy that went on
    by itself: what was read before may not be there any more, and other records may stand at the same
    positions. Follow from 0, into an empty place.
    """


class CheckpointNotFound(Refused):
    """`retrieve_checkpoint` of a checkpoint that is not there, or of a job that is unknown."""

    def _sentence(self) -> str:
        return self.message
