"""Values that come in parts."""

import time
from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.protocol.frames import RequestHeader
from perstack_stored.protocol.multipart import VALUES_MAX, MultipartAssembler


def parts(
    *, value_bytes_max: int = 100, budget_bytes: int = 150, silence_seconds: float = 30
) -> MultipartAssembler:
    return MultipartAssembler(
        value_bytes_max=value_bytes_max, budget_bytes=budget_bytes, silence_seconds=silence_seconds
    )


def header(part: int, **changes: Any) -> RequestHeader:
    fields: dict[str, Any] = {"op": "storeEvent", "session": "8f" * 16, "seq": 6, "settled": 5, "parts": 3}
    return RequestHeader(1, id=1, part=part, **({"bytes": 10} | fields | changes))


def code_of(made: MultipartAssembler, peer: bytes, head: RequestHeader, body: bytes, client: str) -> str:
    with pytest.raises(Refusal) as caught:
        made.take(peer, head, body, client)
    return str(caught.value.code)


def code(made: MultipartAssembler, peer: bytes, head: RequestHeader, body: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        made.take(peer, head, body)
    return str(caught.value.code)


def test_parts_are_put_together() -> None:
    """The last part gives the whole, and the budget is free again."""
    made = parts()
    assert made.take(b"p", header(0), b"abcd") is None
    assert made.bytes == 4
    assert made.take(b"p", header(1, settled=6), b"efg") is None
    assert bytes(made.take(b"p", header(2), b"hij") or b"") == b"abcdefghij"
    assert made.bytes == 0


def test_senders_do_not_disturb_each_other() -> None:
    """Values of several connections come in at the same time."""
    made = parts()
    for i, (one, two) in enumerate([(b"aa", b"11"), (b"bb", b"22"), (b"cc", b"33")]):
        first, second = (
            made.take(peer, header(i, bytes=6), body) for peer, body in ((b"p", one), (b"q", two))
        )
    assert (bytes(first or b""), bytes(second or b"")) == (b"aabbcc", b"112233")


def test_part_0_begins_again() -> None:
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
    assert made.bytes == 0
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
    assert made.bytes == 0


def test_only_what_has_come_takes_room() -> None:
    """Announcements cost nobody anything; a part that finds no room gets BUSY, and room is freed."""
    made = parts()
    for n in range(50):
        assert made.take(b"hog %d" % n, header(0, bytes=100, parts=2), b"xx", "hog") is None
    assert made.bytes == 100
    made.take(b"p", header(0, bytes=100, parts=2), b"y" * 50, "p")
    assert bytes(made.take(b"p", header(1, bytes=100, parts=2), b"y" * 50, "p") or b"") == b"y" * 100
    made.forget(b"hog 0")
    made.forget(b"nobody")
    assert made.bytes < 100


def test_a_value_that_comes_at_once_waits_for_one_that_began_before() -> None:
    """Both are sent without a pause: the first is through in any case, the other fits then."""
    made = parts()
    made.take(b"p", header(0, bytes=100, parts=2), b"x" * 90, "p")
    assert code_of(made, b"q", header(0, bytes=100, parts=2), b"y" * 70, "q") == "BUSY"
    assert made.bytes == 90
    made.take(b"q", header(0, bytes=100, parts=2), b"y" * 60, "q")
    assert bytes(made.take(b"p", header(1, bytes=100, parts=2), b"x" * 10, "p") or b"") == b"x" * 100
    assert code_of(made, b"q", header(1, bytes=100, parts=2), b"y" * 40, "q") == "SEQUENCE_GAP"
    assert made.bytes == 0


def test_of_several_values_of_one_client_the_later_ones_give_way_first() -> None:
    """One process with many connections holds no more than its first value against another client."""
    made = parts()
    for n in range(3):
        made.take(b"hog %d" % n, header(0, bytes=100, parts=2), b"x" * 50, "hog")
    assert made.take(b"p", header(0, bytes=100, parts=2), b"y" * 90, "p") is None
    assert bytes(made.take(b"p", header(1, bytes=100, parts=2), b"y" * 10, "p") or b"") == b"y" * 100
    assert made.gave_way == 2
    assert made.take(b"hog 0", header(1, bytes=100, parts=2), b"x" * 50, "hog") is not None


@pytest.mark.parametrize("drip", [0, 1])
def test_a_sender_that_pauses_loses_to_one_that_sends(drip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence does not keep others out, and neither does a byte now and then."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = parts(silence_seconds=1000)
    made.take(b"hog", header(0, bytes=100, parts=60), b"x" * 90, "hog")
    part = 0

    def is_refused() -> bool:
        try:
            made.take(b"p", header(0, bytes=100, parts=2), b"y" * 80, "p")
        except Refusal as refusal:
            return refusal.code == "BUSY"
        return False

    tries = 0
    while is_refused():
        tries += 1
        now += 0.5
        if drip:
            part += 1
            made.take(b"hog", header(part, bytes=100, parts=60), b"", "hog")
    assert 3 <= tries <= 8
    assert code_of(made, b"hog", header(part + 1, bytes=100, parts=60), b"x", "hog") == "SEQUENCE_GAP"


def test_a_standstill_of_the_daemon_makes_no_sender_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that lay unread meanwhile are as good as sent: the value that began first goes on."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = parts()
    made.take(b"p", header(0, bytes=100, parts=2), b"x" * 90, "p")
    now += 60
    assert code_of(made, b"q", header(0, bytes=100, parts=2), b"y" * 80, "q") == "BUSY"
    assert made.take(b"p", header(1, bytes=100, parts=2), b"x" * 10, "p") is not None


def test_a_crowd_of_values_is_bounded_in_number() -> None:
    """However small they are; another client's begins all the same."""
    made = parts()
    for n in range(VALUES_MAX):
        assert made.take(b"%d" % n, header(0), b"", "hog") is None
    assert code_of(made, b"one more", header(0), b"", "hog") == "BUSY"
    assert made.take(b"p", header(0), b"abcd", "p") is None
    assert made.take(b"0", header(1), b"abcd", "hog") is None


def test_a_sender_that_falls_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the silence the value is forgotten; a part before it restarts the time."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = parts(silence_seconds=30)
    made.take(b"p", header(0), b"abc")
    made.take(b"q", header(0), b"abc")
    now += 20
    made.take(b"p", header(1), b"abc")
    now += 20
    assert made.forget_silent() == 1
    assert made.bytes == 6
    assert code(made, b"q", header(1), b"abc") == "SEQUENCE_GAP"
    assert bytes(made.take(b"p", header(2), b"abcd") or b"") == b"abcabcabcd"
