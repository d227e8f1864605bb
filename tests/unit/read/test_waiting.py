"""Reads that wait for a position that their clients have seen at another daemon."""

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.read.waiting import AHEAD_MAX, ReadAhead, ReadsAwaitingJournal

ENVELOPE = (b"peer", False)


class Number(int):
    """A number that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        Number.compared += 1
        return float(self) < float(other)

    def __le__(self, other: float) -> bool:
        Number.compared += 1
        return float(self) <= float(other)

    __hash__ = int.__hash__


class Waiting:
    """Reads that wait, and the positions of those that were started, in order."""

    def __init__(self) -> None:
        self.reads = ReadsAwaitingJournal()
        self.started: list[int] = []

    def add(self, position: int, deadline: float = 100.0, client: str = "a") -> None:
        def start() -> None:
            self.started.append(int(position))

        self.reads.add(ReadAhead(position, ENVELOPE, 1, "readAll", client, deadline, start))


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_each_is_started_once_its_position_is_here(waiting: Waiting) -> None:
    for position in (7, 3, 9, 3, 5):
        waiting.add(position)
    waiting.reads.release(2)
    assert waiting.started == []
    waiting.reads.release(5)
    assert waiting.started == [3, 3, 5]
    waiting.reads.release(100)
    assert waiting.started == [3, 3, 5, 7, 9]
    assert len(waiting.reads) == 0


def test_those_whose_time_is_over_are_taken_out_and_the_others_go_on(waiting: Waiting) -> None:
    for position, deadline in ((7, 2.0), (3, 1.0), (9, 3.0)):
        waiting.add(position, deadline)
    assert waiting.reads.take_expired(1.0) == []
    assert {read.position for read in waiting.reads.take_expired(2.5)} == {3, 7}
    assert waiting.reads.take_expired(2.9) == []
    waiting.reads.release(9)
    assert waiting.started == [9]
    assert waiting.reads.take_expired(9.0) == []


def test_a_round_of_the_loop_costs_the_same_with_many_that_wait(waiting: Waiting) -> None:
    """Nothing is due: neither position nor deadline of each is looked at."""
    for n in range(1000):
        waiting.add(Number(2**53), deadline=Number(1000 + n))
    Number.compared = 0
    for position in range(100):
        waiting.reads.release(position)
        assert waiting.reads.take_expired(5.0) == []
    assert Number.compared <= 400
    assert len(waiting.reads) == 1000


def test_a_client_has_its_share_and_what_left_makes_room(waiting: Waiting) -> None:
    """One alone gets half of the pool."""
    for n in range(AHEAD_MAX // 2):
        waiting.add(n)
    with pytest.raises(Refusal, match="too many reads wait"):
        waiting.add(5)
    waiting.add(5, client="b")
    waiting.reads.release(AHEAD_MAX)
    for n in range(AHEAD_MAX // 2):
        waiting.add(n)
