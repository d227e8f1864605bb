"""The Python client's codec on the golden vectors: requests are made, answers are opened."""

from typing import Any

import pytest

from perstack_storage._core import frames
from perstack_storage._core.batch import Batch
from perstack_storage._core.conditions import AllOrNone
from perstack_storage._core.errors import ProtocolError, StorageError
from perstack_storage._core.history import SharedHistory
from perstack_storage._core.protocol import ClientProtocol
from perstack_stored.read.arguments import ARGUMENTS
from tests.vectors.vectors import Exchange, exchanges, name_of

_STORES = {
    "storeJob",
    "storeCheckpoint",
    "storeEvent",
    "storeRunSetting",
    "deleteJob",
    "deleteRun",
    "redactRunSetting",
}
_SESSION = "8f" * 16
_FIELDS = {
    *("v", "op", "id", "session", "seq", "settled", "items", "atomic", "part", "parts", "bytes"),
    *("timeoutMs", "atLeast"),
}


def _is_ours(exchange: Exchange) -> bool:
    """Whether this client ever makes such a request: its stores have a session, and `settled` always."""
    header = None if exchange.request is None else exchange.request.header
    if header is None or "part" in header or set(header) - _FIELDS:
        return False
    if "atomic" in header and (header["op"] != "store" or header["atomic"] is not True):
        return False
    if header["op"] == "store" and not all(len(item) == 2 for item in header.get("items", [[]])):
        return False
    return header["op"] not in _STORES | {"store"} or {"session", "settled"} <= set(header)


_OURS = [exchange for exchange in exchanges() if _is_ours(exchange)]


def _made(header: dict[str, Any], body: bytes) -> bytes:
    op, id, session = header["op"], header["id"], header.get("session", "")
    number = (session, header.get("seq", 0), header.get("settled", 0))
    if "atomic" in header:
        return frames.store_request(op, id, number, body, AllOrNone(header["items"]).header())
    if op == "store":
        stores, start = [], 0
        for item_op, size in header["items"]:
            stores.append((item_op, body[start : start + size], None))
            start += size
        return frames.batch_request(id, number, stores)
    if op in _STORES:
        return frames.store_request(op, id, number, body)
    options = {"timeout_ms": header.get("timeoutMs"), "at_least": header.get("atLeast")}
    return frames.request(op, id, body, session=session or None, **options)


@pytest.mark.parametrize("exchange", _OURS, ids=name_of)
def test_a_request_is_made_byte_for_byte(exchange: Exchange) -> None:
    """From what its header says, and the body as it is; an empty body may go without the line feed."""
    assert exchange.request is not None
    assert exchange.request.header is not None
    made = _made(exchange.request.header, exchange.request.body)
    assert made in {exchange.request.frame, exchange.request.frame + b"\n"}


def test_every_operation_is_among_them() -> None:
    """So the list above is not too short."""
    sides = [exchange.request for exchange in _OURS]
    assert {side.header["op"] for side in sides if side and side.header} == {
        *("store", *_STORES, "hello", "ping", "stats", *ARGUMENTS)
    }
    assert len(sides) > 60


def test_the_parts_of_a_value_are_made_byte_for_byte() -> None:
    """The first three parts of parts.json are one value, cut."""
    sides = [exchange.request for exchange in exchanges("parts")[:3]]
    value = b"".join(side.body for side in sides if side)
    for number, side in enumerate(sides):
        assert side is not None
        assert side.header is not None
        header = side.header
        assert header["part"] == number
        part = (number, len(sides[0].body) if sides[0] else 0)
        made = frames.part_request(
            header["op"], header["id"], (header["session"], 1, 0), part, memoryview(value)
        )
        assert made == side.frame


@pytest.mark.parametrize("exchange", exchanges(), ids=name_of)
def test_an_answer_is_opened(exchange: Exchange) -> None:
    """Header, body and error are what stands there; what is no answer is an error of its own."""
    answer = exchange.answer
    if answer.header is None or answer.header["id"] is None:
        with pytest.raises(ProtocolError) as caught:
            frames.parse_answer(answer.frame)
        if answer.header is not None:
            assert answer.header["error"]["message"] in str(caught.value)
        return
    opened = frames.parse_answer(answer.frame)
    assert (opened.header, opened.body) == (answer.header, answer.body)
    assert opened.error == answer.header.get("error")


class _Sink:
    """Hears what became of a store."""

    def __init__(self) -> None:
        self.outcome: Any = None

    def settled(self, batch: Batch) -> None:
        (self.outcome,) = batch.outcomes

    def abandoned(self, batch: Batch) -> None:
        raise AssertionError

    def unheard(self, error: StorageError) -> None:
        raise AssertionError


_TO_A_STORE = [e for e in exchanges("answers") if e.answer.header is not None and e.answer.header["id"] == 7]


@pytest.mark.parametrize("exchange", _TO_A_STORE, ids=name_of)
def test_a_store_is_sent_again_or_settled_as_its_answer_says(exchange: Exchange) -> None:
    """A retryable error sends it again with its number, any other settles it, known or not."""
    answer = exchange.answer
    assert answer.header is not None
    sink = _Sink()
    protocol, frame = _with_a_store_as_request_7(sink)
    protocol.receive(answer.frame, 0.0)
    error = answer.header.get("error")
    if error is None:
        assert sink.outcome == answer.header["position"]
    elif error["retryable"]:
        assert sink.outcome is None
        assert protocol.due() >= error.get("retryAfterMs", 10) / 1000
        assert protocol.next_frame(protocol.due() - 0.001) is None
        assert protocol.next_frame(protocol.due()) == frame.replace(b'"id":7', b'"id":8')
    else:
        assert sink.outcome == error
        assert protocol.stores.settled == 1


def _with_a_store_as_request_7(sink: _Sink) -> tuple[ClientProtocol, bytes]:
    protocol = ClientProtocol(_SESSION, SharedHistory(several=False))
    protocol._next_id = 6  # that of `hello`
    assert protocol.next_frame(0.0) is not None
    protocol.sent(0.0)
    (hello,) = [e.answer.frame for e in exchanges("operations") if e.name == "hello"]
    protocol.receive(hello.replace(b'"id":1', b'"id":6'), 0.0)
    protocol.stores.append(("storeEvent", b"{}", None), sink, 0.0)
    protocol.stores.seal()
    frame = protocol.next_frame(0.0)
    assert frame is not None
    protocol.sent(0.0)
    return protocol, frame
