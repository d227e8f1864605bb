"""The daemon's codec on the golden vectors: requests are opened and checked, answers are made."""

from typing import Any

import msgspec
import pytest

from perstack_storage._core.errors import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model import deletions, value_check
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames
from perstack_stored.read.arguments import ARGUMENTS, at_least, check_arguments
from perstack_stored.store.requests import open_request
from tests.vectors.vectors import Exchange, Side, exchanges, name_of

BATCH_ITEMS_MAX = 1024
# What only the state of a daemon, or its settings, can tell.
_BY_STATE = {
    "CONFLICT",
    "CURSOR_BACK",
    "DELETED",
    "SEQUENCE_GAP",
    "SEQUENCE_OLD",
    "NOT_FOUND",
    "READ_GONE",
    "POSITION_GONE",
    "DEADLINE",
}
_ASKED = [
    exchange for exchange in exchanges() if exchange.request is not None and len(exchange.request.frames) == 1
]


def _open(frame: bytes) -> frames.RequestHeader:
    """Everything that is checked of a request without a daemon.

    Raises:
        Refusal: it breaks a rule.
    """
    head, body = frames.split(frame)
    header = frames.decode_header(head)
    if header.op in frames.STORE_KINDS or header.op == frames.BATCH_OP:
        request = open_request((b"", False), header, body, items_max=BATCH_ITEMS_MAX)
        if header.op in frames.STORE_KINDS and not header.parts:
            kind, payload = request.items[0]
            if kind == Kind.DELETION:
                deletions.check_operation(header.op, deletions.check(payload))
            else:
                value_check.check(kind, payload)
        if request.atomic:
            for item, (kind, payload) in enumerate(request.items):
                try:
                    value_check.check(kind, payload)
                except Refusal as refusal:
                    refusal.item = item
                    raise
    elif header.op in ARGUMENTS:
        check_arguments(header.op, frames.decode_arguments(body))
        at_least(header)
    elif header.op not in {"hello", "ping", "stats"}:
        raise Refusal(ErrorCode.UNKNOWN_OPERATION, "none", "op")
    return header


@pytest.mark.parametrize("exchange", _ASKED, ids=name_of)
def test_a_request_is_opened_or_refused_as_the_vector_says(exchange: Exchange) -> None:
    """Each header field has its value; each refusal its code and its field."""
    assert exchange.request is not None
    frame, answered = exchange.request.frame, exchange.answer.header
    assert answered is not None
    error = answered.get("error")
    state = error is not None and (
        error["code"] in _BY_STATE
        or exchange.file == "parts"
        or exchange.name in {"batch-in-parts", "deleteJob-in-parts", "frame-too-large", "partly-used"}
    )
    if error is None or state:
        opened = _open(frame) if not state else frames.decode_header(frames.split(frame)[0])
        expected = exchange.request.header
        if expected is not None:
            for name in frames.RequestHeader.__struct_fields__:
                if name in expected:
                    value = getattr(opened, name)
                    if name == "expect" and value is not None:
                        value = {
                            key: one for key, one in msgspec.structs.asdict(value).items() if one is not None
                        }
                    assert value == (list(map(tuple, expected[name])) if name == "items" else expected[name])
        return
    with pytest.raises(Refusal) as caught:
        _open(frame)
    refused = caught.value
    assert (refused.code, refused.field, refused.item) == (
        error["code"],
        error.get("field"),
        error.get("item"),
    )
    assert frames.rescue_id(frame[: frames.HEADER_BYTES_MAX]) == answered["id"]


def _made(side: Side) -> bytes:
    header: dict[str, Any] = dict(side.header or {})
    del header["v"]
    id, ok = header.pop("id"), header.pop("ok")
    if not ok:
        error = header["error"]
        return frames.error_answer(
            id,
            Refusal(
                ErrorCode(error["code"]),
                error["message"],
                error.get("field"),
                item=error.get("item"),
                position=error.get("position"),
            ),
        )
    if b"\n" in side.frame:
        return frames.read_answer(id, side.body, **header)
    if "results" in header:
        return frames.results_answer(id, header["results"])
    if "count" in header:
        return frames.batch_answer(id, header["position"], header["count"])
    if "part" in header:
        return frames.part_answer(id, header["part"])
    return frames.stored_answer(id, header["position"])


_OURS = [
    e for e in exchanges() if e.answer.header and e.name not in {"error-FROM_THE_FUTURE", "unknown-fields"}
]


@pytest.mark.parametrize("exchange", _OURS, ids=name_of)
def test_an_answer_is_made_byte_for_byte(exchange: Exchange) -> None:
    """From what its header says."""
    assert _made(exchange.answer) == exchange.answer.frame
