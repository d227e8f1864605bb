"""Sessions: which are kept and which give way, snapshots, and recovery."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.errors import Refusal
from perstack_stored.journal.entry_format import EntryType
from perstack_stored.journal.session import Session
from perstack_stored.journal.session_snapshot import entry_type
from perstack_stored.journal.sessions import Sessions
from tests.helpers.datadir import SESSION_A, SESSION_B, sessions


def keys(count: int) -> list[bytes]:
    return [bytes([i + 1]) * 16 for i in range(count)]


def store(known: Sessions, key: bytes, now: float, client: str = "a", seq: int = 1) -> int:
    """Store once in a session, at a time of its own; how many numbers were seen before."""
    repeats = known.open(key, int(now * 1000), client, now).admit(seq, 1, seq - 1)
    if not repeats:
        known.stored(key, seq, 1 + int(now * 1000), 1)
    return repeats


def named(n: int) -> bytes:
    return (n + 1).to_bytes(16, "big")


def test_a_session_that_is_used_is_not_evicted() -> None:
    """The session unused for longest goes; one used within its time makes a newcomer wait."""
    known = sessions(sessions_max=2, session_seconds=10)
    a, b, c = keys(3)
    store(known, a, 0, "a")
    store(known, b, 1, "b")
    known.open(a, 2000, "a", 2)
    with pytest.raises(Refusal) as caught:
        known.open(c, 10_999, "c", 10.9)
    assert caught.value.code == "BUSY"
    assert known.find(c) is None
    known.open(c, 11_000, "c", 11)
    assert known.find(b) is None
    assert known.find(a) is not None
    assert len(known) == 2


def test_sessions_that_stored_nothing_make_room_first() -> None:
    """Claimed sessions whose stores were all refused keep nobody out, and push out none that stored."""
    known = sessions(sessions_max=4, session_seconds=10)
    mine, *claimed = keys(8)
    store(known, mine, 0)
    for now, key in enumerate(claimed):
        known.open(key, now, "a", 0.1 * now + 1).admit(1, 1, 0)
    known.open(claimed[-3], 7, "a", 7)  # it is used again, so another is the oldest now
    known.open(keys(9)[8], 8, "a", 8)
    assert known.find(mine) is not None
    assert [key for key in claimed if known.find(key)] == [claimed[-3], claimed[-1]]
    assert len(known) == 4


def test_a_session_whose_first_store_is_on_its_way_is_not_forgotten() -> None:
    """One of the same batch may be written in a moment; one that was written counts until its time is up."""
    known = sessions(sessions_max=1, session_seconds=10)
    a, b = keys(2)
    known.open(a, 5, "a", 5).admit(1, 1, 0)
    with pytest.raises(Refusal, match="in use"):
        known.open(b, 5, "b", 5)
    known.stored(a, 1, 1, 1)
    with pytest.raises(Refusal, match="in use"):
        known.open(b, 10_004, "b", 14.9)
    known.open(b, 10_005, "b", 15)
    assert known.find(a) is None


def test_idle_sessions_of_one_client_keep_no_other_client_out() -> None:
    """However many it has begun, and goes on to begin: its oldest give way, and no other's."""
    known = sessions(sessions_max=100, session_seconds=600)
    store(known, named(1000), 0, "quiet")
    for n in range(150):
        store(known, named(n), 1 + n * 0.01, "hog")
    for n in range(90):
        now = 10 + n * 0.01
        store(known, named(2000 + n), now, f"new {n}")
        with contextlib.suppress(Refusal):
            store(known, named(5000 + n), now, "hog")
    assert known.find(named(1000)) is not None
    assert all(known.find(named(2000 + n)) for n in range(90))
    assert len(known) == 100


def test_a_session_that_gave_way_never_stores_twice() -> None:
    """What is sent again is known to be old, also after a restart; its next store goes on."""
    known = sessions(sessions_max=4, session_seconds=600)
    for n in range(4):
        store(known, named(n), n, "hog")
    for n in range(10, 12):
        store(known, named(n), n, "other")
    assert [known.find(named(n)) is None for n in range(4)] == [True, True, False, False]
    assert [known.last_of(named(n)) for n in (0, 1, 2, 77)] == [1, 1, 1, 0]
    restarted = sessions(sessions_max=4, session_seconds=600)
    restarted.restore(known.snapshot())
    for one in (known, restarted):
        session = one.open(named(0), 20_000, "hog", 1e9)
        assert session.admit(1, 1, 0) == 1
        assert session.position_of(1) is None
        assert session.admit(2, 1, 1) == 0


def test_a_client_that_begins_sessions_without_end_waits_in_the_end() -> None:
    """Twice as many as there may be are distinguished. Then it waits, and all others go on."""
    known = sessions(sessions_max=20, session_seconds=600)
    begun = 0
    with pytest.raises(Refusal) as caught:  # noqa: PT012 - whichever is refused
        for begun in range(100):
            store(known, named(begun), begun * 0.01, "hog")
    assert caught.value.code == "BUSY"
    assert 40 <= begun <= 41
    for n in range(18):
        store(known, named(1000 + n), 10 + n * 0.01, f"new {n}")
    with pytest.raises(Refusal):
        store(known, named(3000), 20, "hog")
    assert store(known, named(begun - 1), 21, "hog") == 1
    assert store(known, named(begun - 1), 21.5, "hog", seq=2) == 0
    store(known, named(3000), 700, "hog")


def test_sessions_from_an_earlier_start_belong_to_nobody_until_they_are_used() -> None:
    """They give way to newcomers; one whose client comes back is its own again."""
    before = sessions(sessions_max=10)
    for n in range(10):
        store(before, named(n), n, "hog")
    known = sessions(sessions_max=10)
    known.restore(before.snapshot())
    store(known, named(0), 1e6, "back", seq=2)
    for n in range(4):
        store(known, named(100 + n), 1e6 + n + 1, f"new {n}")
    assert known.find(named(0)) is not None
    assert [known.find(named(n)) is None for n in range(1, 10)] == [True] * 4 + [False] * 5


def test_the_positions_of_all_sessions_together_are_bounded() -> None:
    """The client that has most loses those used longest ago; one with a few keeps them."""
    known = sessions(sessions_max=100, remembered_records_max=1000, runs_max=1000)
    known.open(named(500), 0, "quiet", 0)
    for i in range(50):
        known.stored(named(500), 2 * i + 1, 2 * i + 1, 1)
    for n in range(40):
        known.open(named(n), 0, "hog", 1 + n)
        for i in range(100):
            known.stored(named(n), 2 * i + 1, 1000 * n + 2 * i + 1, 1)
    total = sum(len(one.runs) for one in known._sessions.values())
    assert 500 < total <= 1000
    quiet, newest, first = known.find(named(500)), known.find(named(39)), known.find(named(0))
    assert quiet is not None
    assert newest is not None
    assert first is not None
    assert (quiet.position_of(1), newest.position_of(199)) == (1, 39_199)
    assert (first.position_of(199), first.last, first.written) == (None, 0, 199)


def test_a_session_takes_little_at_the_head_of_a_segment() -> None:
    """One with many runs a few bytes for each of them; a plain one what every version reads."""
    known = sessions(remembered_records_max=1024)
    known.open(SESSION_A, 0)
    known.stored(SESSION_A, 1, 10, 3)
    assert len(known.snapshot()) == 54
    assert known.snapshot().startswith(SESSION_A)
    for i in range(5000):
        known.replay(SESSION_A, 2 * i + 10, 300 * i + 100, 1, 1)
    assert len(known.snapshot()) < 5000
    assert entry_type(known.snapshot()) is EntryType.PACKED_SESSIONS
    restored = sessions(remembered_records_max=1024)
    restored.restore(known.snapshot())
    assert restored.snapshot() == known.snapshot()
    again = restored.find(SESSION_A)
    assert again is not None
    assert again.position_of(2 * 4500 + 10) == 300 * 4500 + 100


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 6000), st.integers(1, 2**40), st.integers(1, 5000)),
        max_size=40,
    )
)
def test_a_snapshot_of_any_sessions_comes_back(stores: list[tuple[int, int, int, int]]) -> None:
    """Plain or packed: numbers, positions and order, whatever the distances between them."""
    known = sessions(remembered_records_max=20_000)
    position = 1
    for n, gap, far, count in stores:
        session = known.open(named(n), gap)
        seq = session.last + gap
        session.last = seq + count - 1
        position += far
        known.stored(named(n), seq, position, count)
        position += count
        assert session.position_of(seq + count - 1) == position - 1
    restored = sessions(remembered_records_max=20_000)
    restored.restore(known.snapshot())
    assert restored.snapshot() == known.snapshot()
    for n in range(6):
        mine, theirs = known.find(named(n)), restored.find(named(n))
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert (mine.written, list(mine.runs)) == (theirs.written, list(theirs.runs))


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
    known = sessions(remembered_records_max=4 * 65_536, runs_max=10**6)
    known.open(SESSION_A, 0).last = count
    for i in range(count):
        known.stored(SESSION_A, i + 1, 2 * i + 1, 1)
    restored = sessions(runs_max=10**6)
    restored.restore(known.snapshot())
    found = restored.find(SESSION_A)
    assert found is not None
    assert found.position_of(count) == 2 * count - 1


def test_replaying_an_entry_twice_changes_nothing() -> None:
    """Entries written again after a later snapshot are applied a second time without harm."""
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
