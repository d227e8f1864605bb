"""The state machine of a session's stores: what goes out, what an answer means, what is sent again."""

import json
from typing import Any

import pytest

from perstack_storage._core.batch import Batch
from perstack_storage._core.conditions import AllOrNone, Conditional, Fence
from perstack_storage._core.errors import ProtocolError, StorageError
from perstack_storage._core.frames import Answer, Limits
from perstack_storage._core.stores import BATCH_AGE_MAX_S, PART_BYTES_MAX, StoreQueue

SESSION = "8f" * 16
BUSY = {"code": "BUSY", "message": "m", "retryable": True}
GAP = {"code": "SEQUENCE_GAP", "message": "m", "retryable": True}
BAD = {"code": "BAD_VALUE", "message": "m", "retryable": False, "field": "f"}


class Outcomes:
    """Sink that remembers the outcomes it gets."""

    def __init__(self) -> None:
        self.seen: list[int | dict[str, Any]] = []
        self.gone = 0

    def settled(self, batch: Batch) -> None:
        self.seen += batch.outcomes

    def abandoned(self, batch: Batch) -> None:
        self.gone += len(batch.pending)

    def unheard(self, error: StorageError) -> None:
        raise AssertionError("only a driver calls this")


class Driver:
    """Plays socket and clock for a queue."""

    def __init__(self, **limits: int) -> None:
        self.limits = Limits()
        for name, value in limits.items():
            setattr(self.limits, name, value)
        self.queue = StoreQueue(SESSION, self.limits)
        self.sink = Outcomes()
        self.now = 100.0
        self.next_id = 1

    def add(self, count: int = 1, body: bytes = b"{}") -> None:
        for _ in range(count):
            self.queue.append(("storeEvent", body, None), self.sink, self.now)

    def send(self) -> list[dict[str, Any]]:
        """Sends all that may be sent; returns the headers."""
        headers = []
        while (batch := self.queue.next_batch(self.now)) is not None:
            frame = self.queue.frame(batch, self.next_id)
            self.queue.sent(batch, self.next_id, self.now)
            self.next_id += 1
            header, _, body = frame.partition(b"\n")
            headers.append(json.loads(header) | {"size": len(body)})
        return headers

    def answer(self, request_id: int, **header: Any) -> bool:
        ok = "error" not in header
        return self.queue.answered(request_id, Answer({"id": request_id, "ok": ok} | header, b""), self.now)


def seqs(headers: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """First number and count of each frame."""
    return [(header["seq"], len(header.get("items", "1"))) for header in headers]


def given_up(batches: list[Batch]) -> tuple[int, bool, Any]:
    """Number of stores, whether any was sent, the error of the first."""
    count = sum(len(batch.pending) for batch in batches)
    return count, any(batch.sent_ever for batch in batches), batches[0].error


def test_a_single_store_is_the_plain_frame_of_wire_md() -> None:
    driver = Driver()
    driver.add(body=b'{"a":1}')
    batch = driver.queue.next_batch(0)
    assert batch is not None
    assert driver.queue.frame(batch, 7) == (
        b'{"v":1,"op":"storeEvent","id":7,"session":"' + SESSION.encode() + b'","seq":1,"settled":0}\n{"a":1}'
    )


def test_a_batch_is_the_frame_of_wire_md() -> None:
    driver = Driver()
    driver.add(body=b'{"a":1}')
    driver.queue.append(("storeJob", b'{"b":22}', None), driver.sink, driver.now)
    batch = driver.queue.next_batch(0)
    assert batch is not None
    assert driver.queue.frame(batch, 8) == (
        b'{"v":1,"op":"store","id":8,"session":"' + SESSION.encode() + b'","seq":1,"settled":0,'
        b'"items":[["storeEvent",7],["storeJob",8]]}\n{"a":1}{"b":22}'
    )


def test_with_nothing_under_way_a_store_goes_at_once_and_then_they_gather() -> None:
    driver = Driver()
    sent = []
    for _ in range(6):
        driver.add()
        sent += driver.send()
    assert seqs(sent) == [(1, 1)]
    driver.answer(1, position=10)
    assert seqs(driver.send()) == [(2, 5)]


@pytest.mark.parametrize(
    ("count", "body", "frames"),
    [
        (130, b"{}", [(1, 1), (2, 64), (66, 64), (130, 1)]),
        (10, b" " * 100_000, [(1, 1), (2, 2), (4, 2), (6, 2), (8, 2), (10, 1)]),
        (4, b" " * 300_000, [(1, 1), (2, 1), (3, 1), (4, 1)]),
    ],
)
def test_a_full_batch_is_sent_with_any_number_under_way(
    count: int, body: bytes, frames: list[tuple[int, int]]
) -> None:
    driver = Driver()
    sent = []
    for _ in range(count):
        driver.add(body=body)
        sent += driver.send()
    driver.queue.seal()
    assert seqs(sent + driver.send()) == frames


def test_the_daemons_limit_of_items_is_kept() -> None:
    driver = Driver(batch_items=3)
    driver.add(7)
    driver.queue.seal()
    assert seqs(driver.send()) == [(1, 3), (4, 3), (7, 1)]


def sent_three_frames() -> Driver:
    driver = Driver(batch_items=2)
    driver.add(6)
    assert seqs(driver.send()) == [(1, 2), (3, 2), (5, 2)]
    return driver


@pytest.mark.parametrize(
    ("answers", "outcomes", "settled", "resent"),
    [
        # (id, answer) as they arrive; outcomes reported; settled then; what is sent again a second later
        ([], [], 0, []),
        ([(1, {"position": 7, "count": 2})], [7, 8], 2, []),
        ([(2, {"position": 9, "count": 2})], [], 0, []),
        ([(2, {"position": 9, "count": 2}), (1, {"position": 7, "count": 2})], [7, 8, 9, 10], 4, []),
        ([(1, {"results": [7, BAD]})], [7, BAD], 2, []),
        ([(1, {"error": BAD})], [BAD, BAD], 2, []),
        ([(1, {"error": BUSY})], [], 0, [(1, 2), (3, 2), (5, 2)]),
        ([(1, {"error": BUSY}), (2, {"error": GAP}), (3, {"error": GAP})], [], 0, [(1, 2), (3, 2), (5, 2)]),
        ([(1, {"position": 7, "count": 2}), (2, {"error": BUSY})], [7, 8], 2, [(3, 2), (5, 2)]),
        ([(2, {"error": GAP}), (1, {"position": 7, "count": 2})], [7, 8], 2, [(3, 2), (5, 2)]),
        ([(2, {"position": 9, "count": 2}), (1, {"error": BUSY})], [], 0, [(1, 2), (5, 2)]),
        ([(1, {"results": [7, BUSY]})], [], 1, [(2, 1), (3, 2), (5, 2)]),
        ([(1, {"results": [BUSY, GAP]})], [], 0, [(1, 2), (3, 2), (5, 2)]),
        ([(99, {"position": 7})], [], 0, []),
    ],
)
def test_answers_settle_in_order_and_a_retryable_error_sends_all_unanswered_again(
    answers: list[tuple[int, dict[str, Any]]],
    outcomes: list[int | dict[str, Any]],
    settled: int,
    resent: list[tuple[int, int]],
) -> None:
    driver = sent_three_frames()
    for request_id, header in answers:
        driver.answer(request_id, **header)
    assert driver.sink.seen == outcomes
    assert driver.queue.settled == settled
    driver.now += 0.9
    assert seqs(driver.send()) == resent


def test_after_a_partly_retryable_batch_the_outcomes_come_together() -> None:
    driver = sent_three_frames()
    driver.answer(1, results=[7, BUSY])
    assert (driver.queue.records, driver.queue.bytes) == (5, 10)
    driver.now += 1
    driver.send()
    driver.answer(4, position=8)
    driver.answer(5, position=9, count=2)
    driver.answer(6, position=11, count=2)
    assert driver.sink.seen == [7, 8, 9, 10, 11, 12]
    assert (driver.queue.records, driver.queue.bytes) == (0, 0)


def test_answers_to_an_earlier_transmission_are_ignored() -> None:
    driver = sent_three_frames()
    driver.answer(1, error=BUSY)
    driver.now += 1
    driver.send()
    assert not driver.answer(2, error=GAP)
    assert driver.answer(4, position=1, count=2)
    assert driver.sink.seen == [1, 2]


def test_settled_has_the_number_of_the_last_answer() -> None:
    driver = Driver()
    driver.add()
    driver.send()
    driver.answer(1, position=1)
    driver.add()
    assert driver.send()[0]["settled"] == 1


def test_a_wait_after_errors_doubles_from_10_ms_to_1_s_and_starts_again_after_progress() -> None:
    driver = Driver()
    driver.add()
    waits = []
    for _ in range(9):
        driver.send()
        driver.answer(driver.next_id - 1, error=BUSY)
        waits.append(round(driver.queue.due() - driver.now, 3))
        driver.now = driver.queue.due()
    assert waits == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    driver.send()
    driver.answer(driver.next_id - 1, position=1)
    driver.add()
    driver.send()
    driver.answer(driver.next_id - 1, error=BUSY)
    assert driver.queue.due() - driver.now == pytest.approx(0.01)


def test_the_daemons_wait_is_kept() -> None:
    driver = Driver()
    driver.add()
    driver.send()
    driver.answer(1, error=BUSY | {"retryAfterMs": 250})
    assert driver.queue.due() - driver.now == pytest.approx(0.25)


def test_silence_is_noticed_after_a_second_then_two_then_four() -> None:
    driver = Driver()
    driver.add()
    for wait in (1, 2, 4, 8, 16, 16):
        driver.send()
        assert not driver.queue.silent(driver.now + wait - 0.01)
        driver.now += wait
        assert driver.queue.silent(driver.now)
        driver.queue.resend_all()
    assert seqs(driver.send()) == [(1, 1)]


def test_a_later_answer_does_not_hide_that_an_earlier_one_is_missing() -> None:
    driver = sent_three_frames()
    driver.now += 0.9
    driver.answer(2, position=3, count=2)
    driver.now += 0.2
    assert driver.queue.silent(driver.now)
    driver.queue.resend_all()
    assert seqs(driver.send()) == [(1, 2), (5, 2)]


def test_the_window_bounds_records_and_bytes_but_takes_a_single_value_of_any_size() -> None:
    driver = Driver(window_records=3, window_bytes=100)
    assert driver.queue.has_room(1000, 9)
    driver.add(2, body=b" " * 30)
    assert driver.queue.has_room(40, 9)
    assert not driver.queue.has_room(41, 9)
    assert not driver.queue.has_room(1, 2)
    driver.add()
    assert not driver.queue.has_room(1, 9)


def test_what_was_given_up_counts_as_settled() -> None:
    driver = sent_three_frames()
    assert given_up(driver.queue.abandon()) == (6, True, None)
    assert driver.sink.gone == 6
    driver.add()
    assert [(h["seq"], h["settled"]) for h in driver.send()] == [(7, 6)]
    assert not driver.answer(1, position=1, count=2)


def test_giving_up_reports_what_was_never_sent_and_what_was_refused_for_now() -> None:
    driver = Driver()
    driver.add(2)
    assert given_up(driver.queue.abandon()) == (2, False, None)
    driver.add()
    driver.send()
    driver.answer(1, error=BUSY)
    assert given_up(driver.queue.abandon()) == (1, True, BUSY)


def test_what_was_called_for_later_is_not_given_up_and_is_sent_again() -> None:
    driver = Driver()
    driver.add(2)
    driver.now += BATCH_AGE_MAX_S + 0.01
    driver.add(3)
    driver.queue.seal()
    assert seqs(driver.send()) == [(1, 2), (3, 3)]
    assert driver.queue.oldest_at == 100.0
    assert given_up(driver.queue.abandon(100.0)) == (2, True, None)
    assert driver.queue.oldest_at == driver.now
    assert driver.queue.records == 3
    again = driver.send()
    assert [(h["seq"], h["settled"]) for h in again] == [(3, 2)]
    driver.answer(3, position=1, count=3)
    assert driver.sink.seen == [1, 2, 3]


def test_a_large_value_goes_in_parts_two_ahead_and_nothing_passes_it() -> None:
    driver = Driver(frame_bytes=10_000_000)
    driver.add(body=b"x" * (2 * PART_BYTES_MAX + 5_000_000))
    driver.add()
    parts = driver.send()
    assert [(h["part"], h["parts"], h["bytes"], h["seq"]) for h in parts] == [
        (0, 4, 2 * PART_BYTES_MAX + 5_000_000, 1),
        (1, 4, 2 * PART_BYTES_MAX + 5_000_000, 1),
    ]
    driver.answer(1, part=0)
    assert [h["part"] for h in driver.send()] == [2]
    driver.answer(2, part=1)
    assert [(h["part"], h["size"]) for h in driver.send()] == [(3, 5_000_000 - PART_BYTES_MAX)]
    driver.answer(3, part=2)
    assert driver.send() == []
    driver.answer(4, position=1)
    assert [h["seq"] for h in driver.send()] == [2]
    driver.answer(5, position=2)
    assert driver.sink.seen == [1, 2]


@pytest.mark.parametrize("error", [BUSY, BAD])
def test_an_error_at_one_part_is_the_answer_to_all(error: dict[str, Any]) -> None:
    driver = Driver(frame_bytes=5_000_000)
    driver.add(body=b"x" * 20_000_000)
    driver.send()
    driver.answer(1, error=error)
    assert not driver.answer(2, error=BAD | {"code": "BAD_REQUEST"})
    driver.now += 1
    if error is BUSY:
        assert [h["part"] for h in driver.send()] == [0, 1]
    else:
        assert driver.sink.seen == [BAD]
        driver.add()
        assert [h["seq"] for h in driver.send()] == [2]


@pytest.mark.parametrize(
    "header", [{"position": 1, "count": 3}, {"results": [1]}, {"results": "x"}, {"position": 1}, {}]
)
def test_an_answer_that_does_not_fit_its_batch_is_an_error(header: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        sent_three_frames().answer(1, **header)


# --- conditions ------------------------------------------------------------------------------------


def test_a_condition_waits_for_hello_and_is_refused_where_the_daemon_would_ignore_it() -> None:
    """An older daemon would store it without a fence, or in part; the stores around it go on."""
    driver = Driver()
    fence = Fence("j", None, 3)
    outcomes = Outcomes()
    driver.queue.append(("storeEvent", Conditional(b"{}", fence), None), outcomes, 0.0)
    all_or_none = AllOrNone([("storeEvent", 2), ("storeJob", 2)], fence)
    driver.queue.append(("store", Conditional(b"{}{}", all_or_none), None), outcomes, 0.0)
    driver.queue.append(("storeEvent", b"{}", None), outcomes, 0.0)
    assert driver.queue.next_batch(0.0) is None
    driver.limits.known = True
    batch = driver.queue.next_batch(0.0)
    assert batch is not None
    assert (batch.start, batch.condition) == (4, None)
    assert [isinstance(one, dict) and one["code"] for one in outcomes.seen] == ["UNKNOWN_OPERATION"] * 2
    assert driver.queue.records == 1


def test_what_is_answered_moves_the_fence() -> None:
    """Later stores carry the newest position; a batch counts as many numbers as it has values."""
    driver = Driver()
    driver.limits.known, driver.limits.features = True, frozenset({"atomic", "expect"})
    fence = Fence('j"1', "r", 3)
    all_or_none = AllOrNone([("storeEvent", 2), ("storeJob", 2)], fence)
    driver.queue.append(("store", Conditional(b"{}{}", all_or_none), None), None, 0.0)
    batch = driver.queue.next_batch(0.0)
    assert batch is not None
    header = json.loads(driver.queue.frame(batch, 1).split(b"\n")[0])
    assert header["items"] == [["storeEvent", 2], ["storeJob", 2]]
    assert header["atomic"] is True
    assert header["expect"] == {"jobId": 'j"1', "runId": "r", "position": 3}
    driver.queue.sent(batch, 1, 0.0)
    driver.queue.answered(1, Answer({"id": 1, "ok": True, "position": 8, "count": 2}, b""), 0.0)
    assert (fence.position, driver.queue.next_seq, driver.queue.settled) == (9, 3, 2)
