"""One session: which store numbers are new, repeated, missing or too old."""

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.journal.session import Session


@pytest.mark.parametrize(
    ("last", "seq", "count", "settled", "repeats", "last_after"),
    [
        (0, 1, 1, 0, 0, 1),  # the first store
        (0, 1, 5, 0, 0, 5),  # the first batch
        (5, 6, 1, 5, 0, 6),
        (5, 6, 3, 0, 0, 8),
        (5, 5, 1, 4, 1, 5),  # repeated
        (5, 1, 5, 0, 5, 5),  # a repeated batch
        (5, 4, 4, 3, 2, 7),  # a batch that is partly repeated
        (5, 1, 1, 5, 1, 5),  # repeated though settled
        (5, 10, 1, 9, 0, 10),  # numbers between were given up on
        (5, 10, 3, 9, 0, 12),
        (5, 10, 1, 100, 0, 10),
        (0, 1000, 1, 999, 0, 1000),  # a session that was forgotten goes on
        (2**53 - 2, 2**53 - 1, 1, 0, 0, 2**53 - 1),
    ],
)
def test_a_store_number_is_admitted(
    last: int, seq: int, count: int, settled: int, repeats: int, last_after: int
) -> None:
    """Next numbers, those after a settled gap, and repeats are taken, as wire.md, section 3, says."""
    session = Session(last)
    assert session.admit(seq, count, settled) == repeats
    assert session.last == last_after


@pytest.mark.parametrize(
    ("last", "seq", "settled"), [(0, 2, 0), (5, 7, 5), (5, 10, 8), (5, 10, 0), (0, 1000, 998), (3, 5, 3)]
)
def test_a_gap_is_refused_and_changes_nothing(last: int, seq: int, settled: int) -> None:
    """A store whose predecessor is missing and not settled is refused, so that the order of calls is kept."""
    session = Session(last)
    with pytest.raises(Refusal) as caught:
        session.admit(seq, 1, settled)
    assert (caught.value.code, caught.value.field) == ("SEQUENCE_GAP", "seq")
    assert caught.value.as_dict()["retryable"] is True
    assert session.last == last


def test_positions_are_remembered_by_number() -> None:
    """Each stored number gives its position; numbers that were refused or never came give none."""
    session = Session()
    session.stored(1, 10, 2, 64)
    session.stored(3, 12, 1, 64)
    session.stored(5, 20, 3, 64)
    assert [session.position_of(seq) for seq in range(9)] == [None, 10, 11, 12, None, 20, 21, 22, None]


def test_settled_numbers_are_forgotten() -> None:
    """What a client says it has an answer for need not be remembered; what lies across the line is kept."""
    session = Session()
    session.stored(1, 1, 3, 64)
    session.stored(4, 14, 3, 64)
    session.last = 6
    session.admit(7, 1, 4)
    assert [session.position_of(seq) for seq in (1, 3, 4, 6)] == [None, None, 14, 16]


@pytest.mark.parametrize("step", [1, 3])
def test_the_memory_of_positions_is_bounded(step: int) -> None:
    """A client that never settles costs a bounded memory, and its newest numbers are always known."""
    session = Session()
    for i in range(1000):
        session.stored(1 + i * step, 7 * i + 1, step, 64)
        newest = (i + 1) * step
        for seq in range(max(1, newest - 63), newest + 1):
            assert session.position_of(seq) is not None
        assert sum(run.count for run in session.runs) <= 64 + 2 * step


def test_runs_that_follow_each_other_are_one() -> None:
    """A client that is alone takes one run of memory, however many stores it has unsettled."""
    session = Session()
    for i in range(50):
        session.stored(1 + i, 11 + i, 1, 64)
    session.stored(51, 100, 2, 64)
    assert [session.position_of(seq) for seq in (1, 50, 51, 52)] == [11, 60, 100, 101]
    assert len(session.runs) == 2
