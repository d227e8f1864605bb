"""Atomic batches: all of their values are stored, or none."""

import json

from perstack_stored.journal.entry_format import ATOMIC
from perstack_stored.model.kinds import Kind
from perstack_stored.store.requests import StoreRequest
from perstack_stored.store.value_checker import check_all
from tests.helpers.datadir import SESSION_A, SESSION_B, checkpoint, dumps
from tests.unit.store.committing import BAD, Daemon, e, error, request


def atomic(*values: bytes, id: int = 1, seq: int = 1, settled: int = 0) -> StoreRequest:
    """An atomic batch of events."""
    return request(*values, id=id, seq=seq, settled=settled, batch=True)._replace(atomic=True)


def flags_of(daemon: Daemon) -> list[int]:
    """The flags of all entries with records."""
    reader = daemon.folder.reader()
    try:
        return [entry.header.flags for entry in reader.entries(reader.start(), daemon.journal.mark)]
    finally:
        reader.close()


def test_several_kinds_are_stored_as_one_entry(daemon: Daemon) -> None:
    """Event and checkpoint of a step stand at consecutive positions, in one entry that says so."""
    both = atomic(e(1))._replace(items=[(int(Kind.EVENT), e(1)), (int(Kind.CHECKPOINT), dumps(checkpoint()))])
    assert daemon.send(both) == [{"v": 1, "id": 1, "ok": True, "position": 1, "count": 2}]
    assert daemon.stored() == [e(1), dumps(checkpoint())]
    assert flags_of(daemon) == [ATOMIC]


def test_one_refusal_stores_nothing_and_names_the_item(daemon: Daemon) -> None:
    """The first wrong value refuses all; the numbers are used, and the next store goes on after them."""
    answers = daemon.send(
        atomic(e(1), BAD, b"{", e(2)), request(e(3), id=2, seq=5), atomic(e(4), BAD, id=3, seq=6)
    )
    wrong = answers[0]["error"]
    assert (wrong["code"], wrong["item"], wrong["field"]) == ("BAD_VALUE", 1, "stepNumber")
    assert answers[1]["position"] == 1
    assert answers[2]["error"]["item"] == 1
    assert daemon.stored() == [e(3)]
    assert flags_of(daemon) == [0]
    assert daemon.stores.answers.refused == {"BAD_VALUE": 2}


def test_a_repeat_has_the_answer_of_the_first_time(daemon: Daemon) -> None:
    """Stored or refused, in the same commit, later, and after a restart."""
    stored, refused = atomic(e(1), e(2)), atomic(e(3), BAD, id=2, seq=3)
    first = daemon.send(stored, refused)
    twice = daemon.send(atomic(e(5), e(6), id=3, seq=5), atomic(e(5), e(6), id=4, seq=5))
    assert [answer["position"] for answer in twice] == [3, 3]
    for _ in range(2):
        assert daemon.send(stored, refused) == first
        daemon.start()
    assert daemon.stored() == [e(1), e(2), e(5), e(6)]


def test_numbers_that_are_used_in_part_are_refused(daemon: Daemon) -> None:
    """Some of it was stored before, so it can't be all or nothing; the number stays free."""
    daemon.send(request(e(1), seq=1))
    (answer,) = daemon.send(atomic(e(1), e(2), seq=1))
    assert (error(answer), answer["error"]["field"]) == ("BAD_REQUEST", "seq")
    assert daemon.send(request(e(2), seq=2))[0]["position"] == 2
    assert daemon.stored() == [e(1), e(2)]


def test_what_is_no_longer_remembered_is_old_as_a_whole(daemon: Daemon) -> None:
    """It was settled: there is one answer for all of it, and a value that is wrong is named first."""
    daemon.send(atomic(e(1), e(2), e(3)))
    daemon.send(request(e(4), seq=4, settled=3))
    (answer,) = daemon.send(atomic(e(1), BAD, e(3)))
    assert (error(answer), answer["error"]["item"]) == ("BAD_VALUE", 1)
    (answer,) = daemon.send(atomic(e(1), e(2), e(3)))
    assert (error(answer), answer["error"]["item"]) == ("SEQUENCE_OLD", 0)


def test_without_a_session_it_is_all_or_nothing_too(daemon: Daemon) -> None:
    """A one-shot program needs no session for it."""
    good = atomic(e(1), e(2), seq=0)._replace(key=None)
    bad = atomic(e(3), BAD, id=2, seq=0)._replace(key=None)
    answers = daemon.send(bad, good)
    assert [answer["ok"] for answer in answers] == [True, False]
    assert daemon.stored() == [e(1), e(2)]


def test_values_that_were_checked_elsewhere_are_refused_together(daemon: Daemon) -> None:
    """Large values come with what the checker process found."""
    known = atomic(e(1), BAD, BAD)
    items = known.items
    (answer,) = daemon.send(known._replace(**check_all(items)._asdict()))
    assert (error(answer), answer["error"]["item"]) == ("BAD_VALUE", 1)
    assert daemon.stored() == []


def test_recovery_keeps_it_whole_and_marked(daemon: Daemon) -> None:
    """After a kill its entry is written again into another segment, and is still atomic."""
    daemon.send(request(e(0), key=SESSION_B, seq=1))
    daemon.send(atomic(e(1), e(2)))
    daemon.start()
    assert daemon.journal.mark.segment == 2
    assert flags_of(daemon) == [0, ATOMIC]
    assert json.loads(daemon.stored()[2])["id"] == "2"
    assert daemon.folder.sessions.last_of(SESSION_A) == 2
