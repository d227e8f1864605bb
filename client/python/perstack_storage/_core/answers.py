"""What both clients make of a request's arguments and of its answer; no I/O."""

from typing import Any, Generic, TypeVar

from perstack_storage._core.epochs import SeenEpochs, name_epochs, spans_of
from perstack_storage._core.errors import (
    CheckpointNotFound,
    ErrorCode,
    PositionGone,
    ProtocolError,
    StorageError,
    refused,
)
from perstack_storage._core.jsonio import dumps, loads
from perstack_storage._core.reads import Read
from perstack_storage._core.shapes import Record

T = TypeVar("T")


class Page(list[T], Generic[T]):
    """A listing, or a piece of it.

    Attributes:
        next: what to give as `after` to go on after this piece; None where the listing is complete.
        position: every record up to this position was seen.
        as_of: the position that it is as of, where `as_of` was asked for.
    """

    def __init__(
        self,
        items: list[T],
        next: Any,  # noqa: A002
        position: int | None,
        as_of: int | None = None,
    ) -> None:
        super().__init__(items)
        self.next = next
        self.position = position
        self.as_of = as_of


def arguments_of(given: dict[str, Any]) -> bytes:
    """Returns the body of a request; what is None is left out."""
    return dumps({name: value for name, value in given.items() if value is not None})


def value_of(read: Read) -> Any:
    """Returns the value that a request was answered with.

    Raises:
        Refused: the daemon did not carry it out; CheckpointNotFound or PositionGone where it is one.
        ProtocolError: the answer is no JSON.
        AnswerTooLarge, NestedTooDeeply: it is more than a client takes.
    """
    body = _checked(read).body
    try:
        return loads(body)
    except StorageError:
        raise
    except ValueError as error:
        raise ProtocolError(f"the answer to {read.op} is no JSON: {error}") from error


def page_of(read: Read) -> Page[Any]:
    """Returns the listing that a request was answered with; raises as `value_of`."""
    items = value_of(read)
    if type(items) is not list:
        raise ProtocolError(f"the answer to {read.op} is no array")
    return Page(items, read.next, read.position, read.as_of)


def as_asked(read: Read, arguments: dict[str, Any]) -> Read:
    """Returns a request with its answer, if the daemon has looked at `asOf`.

    Raises:
        ProtocolError: it is older, and answered as of now.
    """
    is_answered = read.error is None and read.failure is None
    if is_answered and arguments.get("asOf") is not None and read.as_of is None:
        raise ProtocolError("the daemon is older: it has no asOf")
    return read


def records_of(read: Read, after: int, seen: SeenEpochs) -> Page[Record]:
    """Returns the records that a `readAll` after `after` was answered with; raises as `value_of`."""
    page: Page[Record] = page_of(read)
    if type(read.begun_after) is int:
        after = read.begun_after
    if type(page.next) is not int or not all(
        type(record) is dict and type(record.get("position")) is int for record in page
    ):
        raise ProtocolError("an answer to readAll that can't be followed")
    spans = spans_of(after, page.next, read.epoch, read.epochs)
    name_epochs(page, spans)
    seen.note(spans)
    return page


def _checked(read: Read) -> Read:
    if read.failure is not None:
        raise read.failure
    if read.error is not None:
        code = read.error.get("code")
        missing = read.op == "retrieveCheckpoint" and code == ErrorCode.NOT_FOUND
        gone = code == ErrorCode.POSITION_GONE
        kind = CheckpointNotFound if missing else PositionGone if gone else refused
        raise kind(read.error, op=read.op)
    return read
