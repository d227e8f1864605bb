"""The bytes of requests and answers (`proto/wire.md`, sections 2 and 4); no state, no I/O."""

from collections.abc import Iterable
from typing import Any

import orjson

from perstack_storage._core.errors import ProtocolError
from perstack_storage._core.jsonio import loads

VERSION = 1
SHOWN_CHARS_MAX = 300
RETRY_AFTER_MAX_S = 3600.0
WINDOW_RECORDS_MAX = 1 << 20
WINDOW_BYTES_MAX = 1 << 30
"""A daemon that grants more is not believed: the window bounds what a client holds in memory."""
FRAME_BYTES_MIN = 65_536
POSITION_MAX = (1 << 53) - 1
VALUE_BYTES_DEFAULT = 268_435_456
HEADER_RESERVE_BYTES = 2048
"""More than the header of a store of one value or of one part ever takes."""


class Answer:
    """An answer of the daemon: its header, and its body byte for byte."""

    __slots__ = ("body", "header")

    def __init__(self, header: dict[str, Any], body: bytes) -> None:
        self.header = header
        self.body = body

    @property
    def error(self) -> dict[str, Any] | None:
        """What stands in `error`, where the request was not carried out."""
        if self.header.get("ok"):
            return None
        error = self.header.get("error")
        return (
            error if isinstance(error, dict) else {"code": "INTERNAL", "message": "an error without details"}
        )


def parse_answer(frame: bytes) -> Answer:
    """Returns the answer in a frame.

    Raises:
        ProtocolError: the frame has no readable header, or its request could not be read.
    """
    end = frame.find(b"\n")
    try:
        header = orjson.loads(frame if end < 0 else memoryview(frame)[:end])
    except ValueError:
        header = None
    if type(header) is not dict or type(header.get("ok")) is not bool:
        raise ProtocolError(f"an answer without a readable header: {frame[:100]!r}")
    answer = Answer(header, b"" if end < 0 else frame[end + 1 :])
    if type(header.get("id")) is not int:
        if header.get("id") is None:
            raise ProtocolError(f"the daemon could not read a request: {shortened(answer.error)}")
        raise ProtocolError(f"an answer whose id is no integer: {shortened(header)}")
    return answer


def highest_position(header: dict[str, Any]) -> int:
    """Returns the highest position in the header of an answer; 0 without one that is one."""
    position, results, count = header.get("position"), header.get("results"), header.get("count", 1)
    found = [0]
    if type(position) is int and type(count) is int:
        found.append(position + count - 1)
    if type(results) is list:
        found += [result for result in results if type(result) is int]
    return max(found) if max(found) <= POSITION_MAX else 0


def shortened(value: object) -> str:
    """Returns what a daemon said for an error's text: as much of it as a person reads."""
    try:
        text = repr(value)
    except RecursionError:
        return "what is nested too deeply to be shown"
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def retry_after_s(error: dict[str, Any]) -> float:
    """Returns how long an error asks to wait; 0 where it says nothing that can be used."""
    after_ms = error.get("retryAfterMs")
    if not isinstance(after_ms, (int, float)) or not after_ms >= 0:
        return 0.0
    return min(after_ms / 1000, RETRY_AFTER_MAX_S)


def request(
    op: str,
    request_id: int,
    body: bytes = b"",
    *,
    timeout_ms: int | None = None,
    session: str | None = None,
    at_least: int | None = None,
) -> bytes:
    """Returns the frame of a request that stores nothing."""
    timeout = "" if timeout_ms is None else f',"timeoutMs":{timeout_ms}'
    named = "" if session is None else f',"session":"{session}"'
    least = "" if at_least is None else f',"atLeast":{at_least}'
    return f'{{"v":{VERSION},"op":"{op}","id":{request_id}{named}{timeout}{least}}}\n'.encode() + body


StoreNumber = tuple[str, int, int]
"""What numbers a store: its session, its number there, and up to which number all are settled."""


def store_request(op: str, request_id: int, number: StoreNumber, body: bytes, conditions: str = "") -> bytes:
    """Returns the frame of one store, or of an atomic batch; `conditions` are fields after commas."""
    session, seq, settled = number
    return (
        f'{{"v":{VERSION},"op":"{op}","id":{request_id},"session":"{session}",'
        f'"seq":{seq},"settled":{settled}{conditions}}}\n'
    ).encode() + body


def batch_request(
    request_id: int, number: StoreNumber, stores: Iterable[tuple[str, bytes, Any]], conditions: str = ""
) -> bytes:
    """Returns the frame of a batch; of each store, operation and body."""
    session, seq, settled = number
    items = ",".join([f'["{op}",{len(body)}]' for op, body, _ in stores])
    head = (
        f'{{"v":{VERSION},"op":"store","id":{request_id},"session":"{session}",'
        f'"seq":{seq},"settled":{settled},"items":[{items}]{conditions}}}\n'
    )
    return b"".join([head.encode(), *[body for _, body, _ in stores]])


def part_request(
    op: str,
    request_id: int,
    number: StoreNumber,
    part: tuple[int, int],
    value: memoryview,
    conditions: str = "",
) -> bytes:
    """Returns the frame of one part of a value.

    Args:
        op: the operation that the whole value is for.
        request_id: of this part.
        number: of the store.
        part: number of the part, from 0, and bytes in each part but the last.
        value: the whole value.
        conditions: fields of the header after commas.
    """
    session, seq, settled = number
    index, part_bytes = part
    parts = -(-len(value) // part_bytes)
    head = (
        f'{{"v":{VERSION},"op":"{op}","id":{request_id},"session":"{session}","seq":{seq},'
        f'"settled":{settled}{conditions},"part":{index},"parts":{parts},"bytes":{len(value)}}}\n'
    )
    return b"".join((head.encode(), value[index * part_bytes : (index + 1) * part_bytes]))


class Limits:
    """The bounds that a daemon grants; before `hello` is answered, what wire.md gives as usual."""

    __slots__ = (
        "batch_items",
        "features",
        "frame_bytes",
        "known",
        "replicated",
        "store",
        "value_bytes",
        "window_bytes",
        "window_records",
    )

    def __init__(self) -> None:
        self.known = False
        self.features: frozenset[str] = frozenset()
        self.store = ""
        self.replicated = False
        self.window_records = 1024
        self.window_bytes = 16_777_216
        self.frame_bytes = 16_777_216
        self.batch_items = 1024
        self.value_bytes = VALUE_BYTES_DEFAULT

    def learn(self, hello: bytes) -> None:
        """Takes over what the body of an answer to `hello` grants.

        Raises:
            ProtocolError: a bound is missing or no positive integer, or no request fits into a frame.
        """
        try:
            body = loads(hello)
            window, limits, features = body["window"], body["limits"], body.get("features", [])
            value_bytes = limits.get("valueBytes", VALUE_BYTES_DEFAULT)
            values = (window["records"], window["bytes"], limits["frameBytes"], limits["batchItems"])
            if not all(type(value) is int and value > 0 for value in (*values, value_bytes)):
                raise ValueError((*values, value_bytes))
            if values[2] < FRAME_BYTES_MIN:
                raise ValueError(f"frames of {values[2]} bytes")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(
                f"an answer to hello that grants nothing usable: {shortened(error)}"
            ) from error
        records, self.window_bytes = min(values[0], WINDOW_RECORDS_MAX), min(values[1], WINDOW_BYTES_MAX)
        self.frame_bytes, self.batch_items, self.value_bytes = values[2], values[3], value_bytes
        self.window_records = records
        self.features = frozenset(name for name in features if isinstance(name, str))
        store = body.get("store")
        self.store = store if isinstance(store, str) else ""
        self.replicated = body.get("replicated") is True

    def copy(self) -> "Limits":
        """Returns the same bounds as another object."""
        same = Limits()
        for name in self.__slots__:
            setattr(same, name, getattr(self, name))
        return same
