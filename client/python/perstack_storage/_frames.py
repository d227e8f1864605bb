"""The bytes of requests and answers (`proto/wire.md`, sections 2 and 4); no state, no I/O."""

from collections.abc import Iterable
from typing import Any

import orjson

from perstack_storage._errors import ProtocolError
from perstack_storage._jsonio import loads

VERSION = 1
HEADER_RESERVE_BYTES = 512
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
    if type(header) is not dict or "ok" not in header:
        raise ProtocolError(f"an answer without a readable header: {frame[:100]!r}")
    answer = Answer(header, b"" if end < 0 else frame[end + 1 :])
    if header.get("id") is None:
        raise ProtocolError(f"the daemon could not read a request: {answer.error}")
    return answer


def request(
    op: str, request_id: int, body: bytes = b"", *, timeout_ms: int | None = None, session: str | None = None
) -> bytes:
    """Returns the frame of a request that stores nothing."""
    timeout = "" if timeout_ms is None else f',"timeoutMs":{timeout_ms}'
    named = "" if session is None else f',"session":"{session}"'
    return f'{{"v":{VERSION},"op":"{op}","id":{request_id}{named}{timeout}}}\n'.encode() + body


def store_request(op: str, request_id: int, session: str, seq: int, settled: int, body: bytes) -> bytes:
    """Returns the frame of one store."""
    return (
        f'{{"v":{VERSION},"op":"{op}","id":{request_id},"session":"{session}",'
        f'"seq":{seq},"settled":{settled}}}\n'
    ).encode() + body


def batch_request(
    request_id: int, session: str, seq: int, settled: int, items: Iterable[str], bodies: Iterable[bytes]
) -> bytes:
    """Returns the frame of a batch; `items` are the entries as `batch_item` gives them."""
    head = (
        f'{{"v":{VERSION},"op":"store","id":{request_id},"session":"{session}",'
        f'"seq":{seq},"settled":{settled},"items":[{",".join(items)}]}}\n'
    )
    return b"".join((head.encode(), *bodies))


def batch_item(op: str, size_bytes: int) -> str:
    """Returns the entry of one value in the header of a batch."""
    return f'["{op}",{size_bytes}]'


def part_request(
    op: str, request_id: int, session: str, seq: int, settled: int, part: tuple[int, int], value: memoryview
) -> bytes:
    """Returns the frame of one part of a value.

    Args:
        op: the operation that the whole value is for.
        request_id: of this part.
        session: see wire.md, as the next two.
        seq: number of the store.
        settled: see wire.md.
        part: number of the part, from 0, and bytes in each part but the last.
        value: the whole value.
    """
    number, part_bytes = part
    parts = -(-len(value) // part_bytes)
    head = (
        f'{{"v":{VERSION},"op":"{op}","id":{request_id},"session":"{session}","seq":{seq},'
        f'"settled":{settled},"part":{number},"parts":{parts},"bytes":{len(value)}}}\n'
    )
    return b"".join((head.encode(), value[number * part_bytes : (number + 1) * part_bytes]))


class Limits:
    """The bounds that a daemon grants; before `hello` is answered, what wire.md gives as usual."""

    __slots__ = ("batch_items", "frame_bytes", "known", "window_bytes", "window_records")

    def __init__(self) -> None:
        self.known = False
        self.window_records = 1024
        self.window_bytes = 16_777_216
        self.frame_bytes = 16_777_216
        self.batch_items = 1024

    def learn(self, hello: bytes) -> None:
        """Takes over what the body of an answer to `hello` grants.

        Raises:
            ProtocolError: a bound is missing or no positive integer.
        """
        try:
            body = loads(hello)
            window, limits = body["window"], body["limits"]
            values = (window["records"], window["bytes"], limits["frameBytes"], limits["batchItems"])
            if not all(type(value) is int and value > 0 for value in values):
                raise ValueError(values)
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"an answer to hello that grants nothing usable: {error!r}") from error
        self.window_records, self.window_bytes, self.frame_bytes, self.batch_items = values
