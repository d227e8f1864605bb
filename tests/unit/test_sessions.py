"""Sessions: which store numbers are new, repeated, missing or too old."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.errors import Refusal
from perstack_stored.sessions import Session, Sessions
from tests.unit.support import SESSION_A, SESSION_B, sessions


def keys(count: int) -> list[bytes]:
    return [bytes([i + 1]) * 16 for i in range(count)]


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
    """Next numbers, those behind a settled gap, and repeats are taken, as wire.md, section 3, says."""
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


def test_a_session_that_is_used_is_not_evicted() -> None:
    """The session unused for longest goes; one used within its time makes a newcomer wait."""
    known = sessions(sessions_max=2, session_seconds=10)
    a, b, c = keys(3)
    for key, now_ms in ((a, 0), (b, 1000)):
        known.open(key, now_ms).admit(1, 1, 0)
        known.stored(key, 1, 1, 1)
    known.open(a, 2000)
    with pytest.raises(Refusal) as caught:
        known.open(c, 10_999)
    assert caught.value.code == "BUSY"
    assert known.find(c) is None
    known.open(c, 11_000)
    assert known.find(b) is None
    assert known.find(a) is not None
    assert len(known) == 2


def test_sessions_that_stored_nothing_make_room_first() -> None:
    """Claimed sessions whose stores were all refused keep nobody out, and push out none that stored."""
    known = sessions(sessions_max=4, session_seconds=10)
    mine, *claimed = keys(8)
    known.open(mine, 0).admit(1, 1, 0)
    known.stored(mine, 1, 1, 1)
    for now_ms, key in enumerate(claimed):
        known.open(key, now_ms).admit(1, 1, 0)
    known.open(claimed[-3], 7)  # it is used again, so another is the oldest now
    known.open(keys(9)[8], 8)
    assert known.find(mine) is not None
    assert [key for key in claimed if known.find(key)] == [claimed[-3], claimed[-1]]
    assert len(known) == 4


def test_a_session_whose_first_store_is_on_its_way_is_not_forgotten() -> None:
    """One of the same batch may be written in a moment; one that was written counts until its time is up."""
    known = sessions(sessions_max=1, session_seconds=10)
    a, b = keys(2)
    known.open(a, 5).admit(1, 1, 0)
    with pytest.raises(Refusal, match="in use"):
        known.open(b, 5)
    known.stored(a, 1, 1, 1)
    with pytest.raises(Refusal, match="in use"):
        known.open(b, 10_004)
    known.open(b, 10_005)
    assert known.find(a) is None


def test_an_empty_session_leaves_no_trace() -> None:
    """A session that began with a gap takes no place; one that stored keeps its own."""
    known = sessions()
    known.open(SESSION_A, 0)
    known.forget_empty(SESSION_A)
    known.open(SESSION_B, 0).admit(1, 1, 0)
    known.forget_empty(SESSION_B)
    known.forget_empty(keys(1)[0])
    assert known.find(SESSION_A) is None
    assert known.find(SESSION_B) is not None


def test_a_snapshot_comes_back_as_it_was() -> None:
    """Restoring replaces what was known by the snapshot: keys, order of use, numbers and positions."""
    known = sessions()
    a, b, c = keys(3)
    for i, key in enumerate((a, b, c)):
        session = known.open(key, 1000 + i)
        session.last = 5
        known.stored(key, 1, 100 * i + 1, 3)
        known.stored(key, 5, 100 * i + 9, 1)
    known.open(a, 2000)
    other = sessions()
    other.open(keys(9)[8], 1)
    other.restore(memoryview(known.snapshot()))
    assert other.snapshot() == known.snapshot()
    assert len(other) == 3
    found = other.find(c)
    assert found is not None
    assert found.last == 5
    assert found.used_ms == 1002
    assert [found.position_of(seq) for seq in range(1, 6)] == [201, 202, 203, None, 209]
    small = Sessions(sessions_max=2, session_seconds=0, remembered_records_max=64)
    small.restore(b"")
    assert len(small) == 0


def test_a_snapshot_holds_no_number_that_is_not_in_the_journal() -> None:
    """A store admitted and not yet written must be new again after a crash, not one that was settled."""
    known = sessions()
    session = known.open(SESSION_A, 0)
    session.admit(1, 1, 0)
    known.stored(SESSION_A, 1, 1, 1)
    session.admit(2, 3, 0)
    restored = sessions()
    restored.restore(known.snapshot())
    again = restored.find(SESSION_A)
    assert again is not None
    assert again.last == 1
    assert again.admit(2, 3, 0) == 0


def test_a_snapshot_holds_no_session_that_stored_nothing() -> None:
    """Nor does an older one, which names them, bring them back."""
    known = sessions()
    known.open(SESSION_A, 0).admit(1, 1, 0)
    assert known.snapshot() == b""
    known.restore(SESSION_A + bytes(18))
    assert len(known) == 0


@pytest.mark.parametrize("count", [65_536, 70_000])
def test_a_snapshot_takes_any_number_of_runs(count: int) -> None:
    """The widest window that the settings allow fits into the format of the snapshot."""
    known = sessions(remembered_records_max=4 * 65_536)
    known.open(SESSION_A, 0).last = count
    for i in range(count):
        known.stored(SESSION_A, i + 1, 2 * i + 1, 1)
    restored = sessions()
    restored.restore(known.snapshot())
    found = restored.find(SESSION_A)
    assert found is not None
    assert found.position_of(count) == 2 * count - 1


def test_replaying_an_entry_twice_changes_nothing() -> None:
    """Entries written again behind a snapshot of after them are taken up once more without harm."""
    known = sessions()
    for _ in range(3):
        known.replay(SESSION_A, 1, 10, 3, 500)
        known.replay(SESSION_A, 4, 13, 1, 600)
    session = known.find(SESSION_A)
    assert session is not None
    assert (session.last, session.used_ms) == (4, 600)
    assert [session.position_of(seq) for seq in range(1, 6)] == [10, 11, 12, 13, None]


def test_replay_keeps_the_number_of_sessions_bounded() -> None:
    """A journal with more sessions than are remembered restores the newest of them."""
    known = sessions(sessions_max=3)
    for i, key in enumerate(keys(10)):
        known.replay(key, 1, i + 1, 1, i)
    assert len(known) == 3
    assert known.find(keys(10)[9]) is not None
    assert known.find(keys(10)[6]) is None


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(0, 30)), max_size=30))
def test_no_number_is_ever_new_twice(stores: list[tuple[int, int, int]]) -> None:
    """Whatever a client sends, each number is admitted as new at most once, and new numbers only grow."""
    session = Session()
    new: list[int] = []
    for seq, count, settled in stores:
        before = session.last
        try:
            repeats = session.admit(seq, count, settled)
        except Refusal:
            assert session.last == before
            assert seq > before + 1
            continue
        new += range(seq + repeats, seq + count)
        assert 0 <= repeats <= count
    assert new == sorted(set(new))
