"""Frames of the protocol, as in proto/wire.md: decodes requests, encodes answers. No I/O."""

from collections.abc import Iterable
from typing import Any

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model import deletions
from perstack_stored.model.kinds import Kind

PROTOCOL_VERSION = 1
HEADER_BYTES_MAX = 65_536
ARGUMENTS_BYTES_MAX = 65_536
SESSION_BYTES = 16
_SESSION_KEYS_MAX = 1024
_session_keys: dict[str, bytes] = {}  # names of sessions that passed the check: they recur with each store
STORE_KINDS = {
    "storeJob": Kind.JOB,
    "storeCheckpoint": Kind.CHECKPOINT,
    "storeEvent": Kind.EVENT,
    "storeRunSetting": Kind.RUN_SETTING,
    deletions.OF_JOB: Kind.DELETION,
    deletions.OF_RUN: Kind.DELETION,
    deletions.REDACTION: Kind.DELETION,
}
STORE_OPS: dict[int, str] = {kind: op for op, kind in STORE_KINDS.items() if kind is not Kind.DELETION}
"""The operation of each kind but of deletions, of which there are two: see `op_of`."""
BATCH_OP = "store"
CURSOR_OPS = frozenset({"setCursor", "deleteCursor"})
OPERATIONS = frozenset(
    {
        *STORE_KINDS,
        BATCH_OP,
        "retrieveJob",
        "retrieveCheckpoint",
        "getAllJobs",
        "getCheckpointsByJobId",
        "getEventsByRun",
        "getEventContents",
        "getAllRuns",
        "readAll",
        "listJobs",
        "listRuns",
        "getEvent",
        "positionAt",
        "deletions",
        "setCursor",
        "deleteCursor",
        "cursors",
        "sizeOf",
        "readPart",
        "hello",
        "ping",
        "stats",
    }
)


class Expect(msgspec.Struct):
    """What a store expects; wire.md, section 3.2."""

    jobId: str  # noqa: N815 - as on the wire
    position: int
    runId: str | None = None  # noqa: N815


class RequestHeader(msgspec.Struct, gc=False):
    """Header of a request; wire.md, section 2.1, describes the fields."""

    v: int = 0
    op: str = ""
    id: int | None = None
    session: str | None = None
    seq: int = 0
    settled: int = 0
    items: list[tuple[str, int]] | None = None
    atomic: bool | None = None
    expect: Expect | None = None
    part: int = 0
    parts: int = 0
    bytes: int = 0
    timeoutMs: int | None = None  # noqa: N815 - as on the wire
    atLeast: int | None = None  # noqa: N815 - as on the wire


class _Rescue(msgspec.Struct):
    """Fields read from an invalid header: its id for the answer, and its version."""

    id: Any = None
    v: Any = None


_header = msgspec.json.Decoder(RequestHeader)
_rescue = msgspec.json.Decoder(_Rescue)
encode = msgspec.json.Encoder().encode
# All errors of decoding: invalid UTF-8 is found only where a string is made.
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def op_of(kind: int, payload: bytes | bytearray | memoryview) -> str:
    """The operation that stored a record."""
    return deletions.decode(payload).op if kind == Kind.DELETION else STORE_OPS[kind]


def split(frame: bytes) -> tuple[bytes, bytes]:
    """Split a frame into header and body, both as bytes.

    Raises:
        Refusal: BAD_FRAME, without a header of at most `HEADER_BYTES_MAX` bytes.
    """
    end = frame.find(b"\n", 0, HEADER_BYTES_MAX + 1)
    if end >= 0:
        return frame[:end], frame[end + 1 :]
    if len(frame) > HEADER_BYTES_MAX:
        raise Refusal(
            ErrorCode.BAD_FRAME, f"no line feed within the first {HEADER_BYTES_MAX} bytes ends the header"
        )
    return frame, b""


def decode_header(data: bytes) -> RequestHeader:
    """Decode the header of a request.

    Raises:
        Refusal: BAD_FRAME, BAD_REQUEST or UNSUPPORTED_VERSION.
    """
    try:
        header = _header.decode(data)
    except msgspec.ValidationError as error:
        raise _wrong(data, str(error)) from None
    except _UNREADABLE:
        raise Refusal(ErrorCode.BAD_FRAME, "the frame does not begin with a header in JSON") from None
    if header.v != PROTOCOL_VERSION:
        raise _unsupported(header.v)
    if header.id is None or not 0 <= header.id <= 2**53 - 1:
        raise Refusal(ErrorCode.BAD_REQUEST, "id must be an integer from 0 to 2^53-1", "id")
    return header


def _wrong(data: bytes, reason: str) -> Refusal:
    """Why a header is refused. The version is tested first: another one may have other types of fields."""
    field = _field(reason)
    if field is None:
        return Refusal(ErrorCode.BAD_FRAME, f"the header is not a JSON object: {_plain(reason)}")
    try:
        v = _rescue.decode(data).v
    except _UNREADABLE:
        v = None
    if type(v) is int and v != PROTOCOL_VERSION:
        return _unsupported(v)
    return Refusal(ErrorCode.BAD_REQUEST, f"the header is wrong: {_plain(reason)}", field)


def _unsupported(v: int) -> Refusal:
    return Refusal(ErrorCode.UNSUPPORTED_VERSION, f"version {v} is not spoken here", "v")


def rescue_id(frame: bytes) -> int | None:
    """The request's id, where the rest of its header is invalid."""
    try:
        found = _rescue.decode(frame[:HEADER_BYTES_MAX].split(b"\n", 1)[0]).id
    except _UNREADABLE:
        return None
    return found if type(found) is int and 0 <= found <= 2**53 - 1 else None


def session_key(header: RequestHeader) -> bytes | None:
    """The 16 bytes of the session, None without one.

    Raises:
        Refusal: BAD_REQUEST.
    """
    text = header.session
    if text is None:
        if header.seq:
            raise Refusal(ErrorCode.BAD_REQUEST, "seq needs a session", "session")
        return None
    known = _session_keys.get(text)
    if known is not None:
        return known
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(text) != 2 * SESSION_BYTES or len(key) != SESSION_BYTES or not any(key) or text != text.lower():
        raise Refusal(
            ErrorCode.BAD_REQUEST, "session must be 32 lower-case hexadecimal digits, not all zero", "session"
        )
    if len(_session_keys) >= _SESSION_KEYS_MAX:
        _session_keys.clear()
    _session_keys[text] = key
    return key


def decode_arguments(body: bytes) -> dict[str, Any]:
    """Decode the argument object of a read.

    Raises:
        Refusal: BAD_REQUEST.
    """
    if not body:
        return {}
    if len(body) > ARGUMENTS_BYTES_MAX:
        # Decoded, they could take a hundred times their bytes.
        raise Refusal(ErrorCode.BAD_REQUEST, f"the arguments hold more than {ARGUMENTS_BYTES_MAX} bytes")
    try:
        arguments = msgspec.json.decode(body)
    except _UNREADABLE:
        raise Refusal(ErrorCode.BAD_REQUEST, "the arguments are not JSON") from None
    if not isinstance(arguments, dict):
        raise Refusal(ErrorCode.BAD_REQUEST, "the arguments must be a JSON object")
    return arguments


def stored_answer(id: int, position: int) -> bytes:
    """Answer to a store."""
    return b'{"v":1,"id":%d,"ok":true,"position":%d}' % (id, position)


def batch_answer(id: int, position: int, count: int) -> bytes:
    """Answer to a batch whose items stand at consecutive positions."""
    return b'{"v":1,"id":%d,"ok":true,"position":%d,"count":%d}' % (id, position, count)


def results_answer(id: int, results: list[int | dict[str, object]]) -> bytes:
    """Answer to a batch, item by item: a position, or an error object."""
    return encode({"v": PROTOCOL_VERSION, "id": id, "ok": True, "results": results})


def part_answer(id: int, part: int) -> bytes:
    """Answer to a part of a value: the next one may come."""
    return b'{"v":1,"id":%d,"ok":true,"part":%d}' % (id, part)


def read_answer(id: int, body: bytes, **fields: object) -> bytes:
    """Answer to a read; header fields that are None are left out."""
    return joined_answer(id, [body], **fields)


def joined_answer(id: int, body: Iterable[bytes | memoryview], **fields: object) -> bytes:
    """Answer to a read whose body is in pieces: each is copied once."""
    header: dict[str, object] = {"v": PROTOCOL_VERSION, "id": id, "ok": True}
    header.update({name: value for name, value in fields.items() if value is not None})
    return b"".join((encode(header), b"\n", *body))


def error_answer(id: int | None, refusal: Refusal) -> bytes:
    """Answer to a request that was not carried out."""
    error = refusal.as_dict()
    if refusal.code is ErrorCode.UNSUPPORTED_VERSION:
        error["versions"] = [PROTOCOL_VERSION]
    return encode({"v": PROTOCOL_VERSION, "id": id, "ok": False, "error": error})


def _plain(text: str) -> str:
    return text.replace("`", "")[:1].lower() + text.replace("`", "")[1:]


def _field(text: str) -> str | None:
    place = text.rpartition("`$.")[2].rstrip("`") if "`$." in text else ""
    return place.split("[")[0] or None
