"""Values that come in parts."""

import time
from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.parts import Parts
from perstack_stored.wire import RequestHeader


def parts(*, value_bytes_max: int = 100, budget_bytes: int = 150, silence_seconds: float = 30) -> Parts:
    return Parts(value_bytes_max=value_bytes_max, budget_bytes=budget_bytes, silence_seconds=silence_seconds)


def header(part: int, **changes: Any) -> RequestHeader:
    fields: dict[str, Any] = {"op": "storeEvent", "session": "8f" * 16, "seq": 6, "settled": 5, "parts": 3}
    return RequestHeader(1, id=1, part=part, **({"bytes": 10} | fields | changes))


def code(made: Parts, peer: bytes, head: RequestHeader, body: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        made.take(peer, head, body)
    return str(caught.value.code)


def test_parts_are_put_together() -> None:
    """The last part gives the whole, and the budget is free again."""
    made = parts()
    assert made.take(b"p", header(0), b"abcd") is None
    assert made.reserved_bytes == 10
    assert made.take(b"p", header(1, settled=6), b"efg") is None
    assert bytes(made.take(b"p", header(2), b"hij") or b"") == b"abcdefghij"
    assert made.reserved_bytes == 0


def test_senders_do_not_disturb_each_other() -> None:
    """Values of several connections come in at the same time."""
    made = parts()
    for i, (one, two) in enumerate([(b"aa", b"11"), (b"bb", b"22"), (b"cc", b"33")]):
        first, second = (
            made.take(peer, header(i, bytes=6), body) for peer, body in ((b"p", one), (b"q", two))
        )
    assert (bytes(first or b""), bytes(second or b"")) == (b"aabbcc", b"112233")


def test_part_0_begins_anew() -> None:
    """All parts sent again from 0 replace what had come."""
    made = parts()
    made.take(b"p", header(0), b"xxxx")
    made.take(b"p", header(1), b"xxx")
    for i, body in enumerate([b"abcd", b"efg"]):
        made.take(b"p", header(i), body)
    assert bytes(made.take(b"p", header(2), b"hij") or b"") == b"abcdefghij"


@pytest.mark.parametrize(
    ("heads", "refused"),
    [
        ([header(1)], "SEQUENCE_GAP"),
        ([header(0), header(2)], "BAD_REQUEST"),
        ([header(0), header(1), header(1)], "BAD_REQUEST"),
        ([header(0), header(-1)], "BAD_REQUEST"),
        ([header(0), header(1, seq=7)], "BAD_REQUEST"),
        ([header(0), header(1, parts=4)], "BAD_REQUEST"),
        ([header(0), header(1, bytes=11)], "BAD_REQUEST"),
        ([header(0), header(1, op="storeJob")], "BAD_REQUEST"),
        ([header(0), header(1, session=None)], "BAD_REQUEST"),
        ([header(0, parts=1)], "BAD_REQUEST"),
        ([header(0, parts=-3)], "BAD_REQUEST"),
        ([header(0, parts=11)], "BAD_REQUEST"),
        ([header(0, bytes=0)], "BAD_REQUEST"),
        ([header(0, bytes=-5)], "BAD_REQUEST"),
        ([header(0, bytes=101)], "TOO_LARGE"),
        ([header(0, bytes=2**60)], "TOO_LARGE"),
        ([header(0, parts=2**60, bytes=2**60)], "TOO_LARGE"),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_the_whole_is_forgotten(
    heads: list[RequestHeader], refused: str
) -> None:
    """Out of order, of another value, or too large: refused, and the budget is free."""
    made = parts()
    for head in heads[:-1]:
        assert made.take(b"p", head, b"abc") is None
    assert code(made, b"p", heads[-1], b"abc") == refused
    assert made.reserved_bytes == 0
    assert code(made, b"p", header(1), b"abc") == "SEQUENCE_GAP"


@pytest.mark.parametrize(
    "bodies", [[b"abcd", b"efgh", b"ijk"], [b"abcd", b"efg", b"hi"], [b"x" * 11, b"", b""], [b"", b"", b""]]
)
def test_parts_must_hold_the_bytes_announced(bodies: list[bytes]) -> None:
    """Neither more nor less than `bytes` is taken."""
    made = parts()
    with pytest.raises(Refusal) as caught:
        _ = [made.take(b"p", header(i), body) for i, body in enumerate(bodies)]
    assert (caught.value.code, caught.value.field) == ("BAD_REQUEST", "bytes")
    assert made.reserved_bytes == 0


def test_the_budget_is_shared() -> None:
    """A value that doesn't fit beside the others is told to wait, and fits when one of them is through."""
    made = parts()
    made.take(b"p", header(0, bytes=100, parts=2), b"x" * 60)
    assert code(made, b"q", header(0, bytes=51), b"y") == "BUSY"
    assert made.reserved_bytes == 100
    made.take(b"q", header(0, bytes=50), b"y")
    assert made.reserved_bytes == 150
    assert bytes(made.take(b"p", header(1, bytes=100, parts=2), b"x" * 40) or b"") == b"x" * 100
    assert made.take(b"q", header(1, bytes=50), b"y") is None
    made.forget(b"q")
    made.forget(b"nobody")
    assert made.reserved_bytes == 0


def test_a_sender_that_falls_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the silence the value is forgotten; a part before it starts the time anew."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = parts(silence_seconds=30)
    made.take(b"p", header(0), b"abc")
    made.take(b"q", header(0), b"abc")
    now += 20
    made.take(b"p", header(1), b"abc")
    now += 20
    assert made.forget_silent() == 1
    assert made.reserved_bytes == 10
    assert code(made, b"q", header(1), b"abc") == "SEQUENCE_GAP"
    assert bytes(made.take(b"p", header(2), b"abcd") or b"") == b"abcabcabcd"
