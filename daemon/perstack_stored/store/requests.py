"""A request to store: one record or a batch, as parsed from a frame."""

from typing import NamedTuple

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.model import deletions, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.names import check_id
from perstack_stored.model.owners import NO_RUN
from perstack_stored.model.shares import NOBODY, Client
from perstack_stored.protocol import frames
from perstack_stored.protocol.frames import RequestHeader
from perstack_stored.protocol.messages import Envelope

Payload = bytes | bytearray
_LENGTH_MAX = values.SAFE_INTEGER_MAX
_BATCH_KINDS = {op: int(kind) for op, kind in frames.STORE_KINDS.items() if kind is not Kind.DELETION}


class StoreRequest(NamedTuple):
    """A frame with one store or a batch of stores."""

    envelope: Envelope
    id: int
    key: bytes | None
    seq: int
    settled: int
    items: list[tuple[int, Payload]]  # kind and value
    is_batch: bool
    size: int  # bytes of the values
    op: str
    client: Client = NOBODY
    atomic: bool = False  # all items are stored, or none
    refusals: dict[int, Refusal] | None = None  # by item: what the check found wrong; None if not checked
    owners: dict[int, tuple[str, str]] = {}  # by item that was checked: job and run of the value  # noqa: RUF012 - never changed
    expect: Expectation | None = None


def open_request(
    envelope: Envelope, header: RequestHeader, body: Payload, *, items_max: int, client: Client = NOBODY
) -> StoreRequest:
    """Parse the stores of a frame; values are not checked yet.

    Raises:
        Refusal: BAD_REQUEST or TOO_LARGE.
    """
    key = frames.session_key(header)
    if key is not None and not 1 <= header.seq < 2**53:
        raise Refusal(ErrorCode.BAD_REQUEST, "a store in a session needs seq, an integer from 1 on", "seq")
    if not 0 <= header.settled < 2**53:
        raise Refusal(ErrorCode.BAD_REQUEST, "settled must be an integer from 0 on", "settled")
    if header.op in deletions.OPERATIONS:
        most = deletions.DELETION_BYTES_MAX
        if header.op == deletions.REDACTION:
            most = deletions.REDACTION_BYTES_MAX
        if len(body) > most:
            raise Refusal(ErrorCode.TOO_LARGE, f"{header.op} has at most {most} bytes")
    is_batch = header.op == frames.BATCH_OP
    items = _batch(header, body, items_max) if is_batch else [(int(frames.STORE_KINDS[header.op]), body)]
    assert header.id is not None
    return StoreRequest(
        envelope,
        header.id,
        key,
        header.seq,
        header.settled,
        items,
        is_batch,
        len(body),
        header.op,
        client,
        atomic=is_batch and bool(header.atomic),
        expect=None if header.expect is None else _expectation(header.expect),
    )


def _expectation(expect: frames.Expect) -> Expectation:
    try:
        check_id(expect.jobId, "jobId")
        if expect.runId is not None:
            check_id(expect.runId, "runId")
    except Refusal as refusal:
        raise Refusal(
            ErrorCode.BAD_REQUEST, f"expect: {refusal.message}", f"expect.{refusal.field}"
        ) from None
    if not 0 <= expect.position <= values.SAFE_INTEGER_MAX:
        raise Refusal(
            ErrorCode.BAD_REQUEST, "expect.position must be an integer from 0 to 2^53-1", "expect.position"
        )
    return Expectation((expect.jobId, NO_RUN if expect.runId is None else expect.runId), expect.position)


def _batch(header: RequestHeader, body: Payload, items_max: int) -> list[tuple[int, Payload]]:
    if not header.items:
        raise Refusal(ErrorCode.BAD_REQUEST, "a batch needs items", "items")
    if len(header.items) > items_max:
        raise Refusal(
            ErrorCode.TOO_LARGE, f"a batch holds at most {items_max} items (limits.batchItems)", "items"
        )
    items: list[tuple[int, Payload]] = []
    start = 0
    known = _BATCH_KINDS
    for op, length in header.items:
        # A sum of larger integers may have more digits than Python formats.
        if op not in known or not 0 <= length <= _LENGTH_MAX:
            if op in deletions.OPERATIONS and 0 <= length <= _LENGTH_MAX:
                raise Refusal(ErrorCode.BAD_REQUEST, f"{op} can't be in a batch", "items")
            raise Refusal(
                ErrorCode.BAD_REQUEST, "items must be pairs of a store operation and a length", "items"
            )
        end = start + length
        items.append((known[op], body[start:end]))
        start = end
    if start != len(body):
        raise Refusal(ErrorCode.BAD_REQUEST, f"the items hold {start} bytes, the body {len(body)}", "items")
    return items
