"""A store or batch is answered with its positions, and a refused one with the reason."""

from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import checkpoint, dumps, event, job, setting
from tests.unit.store.committing import BAD, Daemon, e, error, request


def test_a_store_is_answered_with_its_position(daemon: Daemon) -> None:
    """Single stores of each kind are journalled byte for byte and answered with positions that count up."""
    values = [
        (Kind.JOB, job()),
        (Kind.CHECKPOINT, checkpoint()),
        (Kind.EVENT, event()),
        (Kind.RUN_SETTING, setting()),
    ]
    for i, (kind, value) in enumerate(values, 1):
        (answer,) = daemon.send(request(dumps(value) + b" ", id=i, seq=i, settled=i - 1, kind=kind))
        assert answer == {"v": 1, "id": i, "ok": True, "position": i}
    assert daemon.stored() == [dumps(value) + b" " for _, value in values]
    assert daemon.stores.stored == {kind: 1 for kind, _ in values}


def test_a_batch_is_answered_with_its_first_position_and_count(daemon: Daemon) -> None:
    """A batch without refusals is one short answer, a batch of one included."""
    assert daemon.send(request(e(1), e(2), e(3), id=1, seq=1)) == [
        {"v": 1, "id": 1, "ok": True, "position": 1, "count": 3}
    ]
    assert daemon.send(request(e(4), id=2, seq=4, batch=True)) == [
        {"v": 1, "id": 2, "ok": True, "position": 4, "count": 1}
    ]


def test_the_items_of_a_batch_are_refused_one_by_one(daemon: Daemon) -> None:
    """Refusals anywhere in a batch leave the other items stored, in order, with their numbers."""
    items = (BAD, e(1), BAD, BAD, e(2), e(3), b"{", e(4), BAD)
    (answer,) = daemon.send(request(*items, seq=1))
    results = answer["results"]
    assert [r if isinstance(r, int) else r["code"] for r in results] == [
        "BAD_VALUE", 1, "BAD_VALUE", "BAD_VALUE", 2, 3, "BAD_JSON", 4, "BAD_VALUE",
    ]  # fmt: skip
    assert results[0]["field"] == "stepNumber"
    assert results[0]["retryable"] is False
    assert daemon.stored() == [e(1), e(2), e(3), e(4)]
    assert [s.seq for s in daemon.folder.read(daemon.journal.mark)] == [2, 5, 6, 8]
    assert daemon.stores.answers.refused == {"BAD_VALUE": 4, "BAD_JSON": 1}
    for _ in range(2):
        (again,) = daemon.send(request(*items, seq=1))
        assert again == answer
        daemon.start()
    assert len(daemon.stored()) == 4


def test_a_batch_of_refusals_only_stores_nothing(daemon: Daemon) -> None:
    """When each item is refused the journal isn't touched, and the numbers are used up all the same."""
    (answer,) = daemon.send(request(BAD, BAD, seq=1))
    assert [r["code"] for r in answer["results"]] == ["BAD_VALUE"] * 2
    assert daemon.journal.mark.position == 0
    assert daemon.send(request(e(1), id=2, seq=3, settled=2))[0]["position"] == 1


def test_a_refused_store_is_refused_again_for_the_same_reason(daemon: Daemon) -> None:
    """A repeat of a refused number is checked again, not called old, also after a restart."""
    for _ in range(2):
        (answer,) = daemon.send(request(BAD, seq=1))
        assert error(answer) == "BAD_VALUE"
        assert answer["error"]["field"] == "stepNumber"
    daemon.send(request(e(2), seq=2, id=2))
    daemon.start()
    assert error(daemon.send(request(BAD, seq=1))[0]) == "BAD_VALUE"
