"""What a session sends again gets its first answer, and nothing is stored twice."""

import gc

from tests.helpers.datadir import SESSION_B
from tests.unit.store.committing import BAD, Daemon, e, error, request


def test_a_repeat_is_answered_with_the_first_position(daemon: Daemon) -> None:
    """Sent again in another commit, and after a restart: the same position, nothing stored."""
    daemon.send(request(e(1), seq=1), request(e(9), id=2, key=SESSION_B, seq=1))
    for _ in range(3):
        assert daemon.send(request(e(1), seq=1))[0]["position"] == 1
        assert daemon.send(request(e(9), key=SESSION_B, seq=1))[0]["position"] == 2
        daemon.start()
    assert daemon.stored() == [e(1), e(9)]


def test_a_frame_that_comes_twice_in_one_commit_is_stored_once(daemon: Daemon) -> None:
    """A repeat that is handled in the commit of the original gets the position that the original gets."""
    answers = daemon.send(request(e(1), id=1, seq=1), request(e(1), id=2, seq=1), request(e(2), id=3, seq=2))
    assert [a["position"] for a in answers] == [1, 1, 2]
    batch = [request(e(3), BAD, e(4), id=i, seq=3) for i in (1, 2)]
    first, second = daemon.send(*batch)
    assert first["results"] == second["results"]
    assert daemon.stored() == [e(1), e(2), e(3), e(4)]
    assert daemon.stores.answers.repeated == 3


def test_a_batch_that_is_partly_a_repeat_stores_the_rest(daemon: Daemon) -> None:
    """Numbers seen before keep their positions, refused ones their refusals, and the new ones are stored."""
    daemon.send(request(e(1), BAD, seq=1))
    (answer,) = daemon.send(request(e(1), BAD, e(3), e(4), seq=1))
    assert [r if isinstance(r, int) else r["code"] for r in answer["results"]] == [1, "BAD_VALUE", 2, 3]
    assert daemon.stored() == [e(1), e(3), e(4)]


def test_a_settled_store_that_comes_late_is_old(daemon: Daemon) -> None:
    """A number that was given up on, or answered, is never stored when it comes late."""
    daemon.send(request(e(5), seq=5, settled=4))
    assert error(daemon.send(request(e(3), seq=3, settled=2))[0]) == "SEQUENCE_OLD"
    (answer,) = daemon.send(request(e(3), e(4), e(5), e(6), seq=3, settled=2))
    assert [r if isinstance(r, int) else r["code"] for r in answer["results"]] == [
        "SEQUENCE_OLD", "SEQUENCE_OLD", 1, 2,
    ]  # fmt: skip
    assert daemon.stored() == [e(5), e(6)]


def test_a_gap_stops_what_comes_after_it(daemon: Daemon) -> None:
    """When a store is missing, the later ones of its session are refused; other sessions go on."""
    answers = daemon.send(
        request(e(1), id=1, seq=1),
        request(e(3), id=2, seq=3),
        request(e(4), id=3, seq=4),
        request(e(9), id=4, key=SESSION_B, seq=1),
        request(e(2), id=5, seq=2),
        request(e(3), id=6, seq=3),
    )
    assert [a.get("position") for a in answers] == [1, None, None, 2, 3, 4]
    assert [error(a) for a in answers[1:3]] == ["SEQUENCE_GAP"] * 2
    assert daemon.stored() == [e(1), e(9), e(2), e(3)]


def test_without_a_session_everything_is_stored_as_often_as_it_comes(daemon: Daemon) -> None:
    """One-shot programs have no numbers: at least once, batches included."""
    answers = daemon.send(
        request(e(1), id=1, key=None), request(e(1), id=2, key=None), request(e(2), BAD, e(3), id=3, key=None)
    )
    assert answers[0]["position"] == 1
    assert answers[1]["position"] == 2
    assert [r if isinstance(r, int) else r["code"] for r in answers[2]["results"]] == [3, "BAD_VALUE", 4]
    assert error(daemon.send(request(BAD, id=4, key=None))[0]) == "BAD_VALUE"
    assert len(daemon.folder.sessions) == 0


def test_too_many_sessions_get_busy(daemon: Daemon) -> None:
    """With all sessions in use a new one gets BUSY, and leaves nothing behind."""
    daemon.folder.sessions._sessions_max = 1
    daemon.send(request(e(1), seq=1))
    other = request(e(2), key=SESSION_B, seq=1)._replace(client="another")
    assert error(daemon.send(other)[0]) == "BUSY"
    assert daemon.stored() == [e(1)]


def test_a_store_sent_again_in_a_session_that_gave_way_is_not_stored_again(daemon: Daemon) -> None:
    """Its client hears that it is old; its next store, with the number before settled, is stored."""
    daemon.folder.sessions._sessions_max = 2
    for n in range(2):
        assert "position" in daemon.send(request(e(n), key=bytes([100 + n]) * 16, seq=1))[0]
    other = request(e(7), key=SESSION_B, seq=1)._replace(client="another")
    assert daemon.send(other)[0]["position"] == 3
    assert error(daemon.send(request(e(0), key=bytes([100]) * 16, seq=1))[0]) == "SEQUENCE_OLD"
    assert daemon.send(request(e(8), key=bytes([100]) * 16, seq=2, settled=1))[0]["position"] == 4
    assert daemon.stored() == [e(0), e(1), e(7), e(8)]


def test_a_crowd_of_sessions_that_store_nothing_keeps_nobody_out(daemon: Daemon) -> None:
    """Those that were refused make room, and what was stored before and after is still known by number."""
    daemon.folder.sessions._sessions_max = 3
    daemon.send(request(e(1), seq=1))
    for i in range(9):
        assert error(daemon.send(request(BAD, key=bytes([100 + i]) * 16, seq=1))[0]) == "BAD_VALUE"
    assert daemon.send(request(e(2), key=SESSION_B, seq=1))[0]["position"] == 2
    assert daemon.send(request(e(1), seq=1))[0]["position"] == 1
    assert daemon.send(request(e(2), key=SESSION_B, seq=1))[0]["position"] == 2
    assert daemon.stored() == [e(1), e(2)]


def test_refused_items_leave_nothing_that_only_a_collection_frees(daemon: Daemon) -> None:
    """Each would keep its whole batch in memory until then: megabytes, for a client that sends bad values."""
    gc.collect()
    gc.disable()
    try:
        for seq in range(1, 200, 2):
            daemon.send(request(e(seq), BAD, seq=seq))
        assert error(daemon.send(request(BAD, seq=2))[0]) == "BAD_VALUE"
        assert gc.collect() == 0
    finally:
        gc.enable()
