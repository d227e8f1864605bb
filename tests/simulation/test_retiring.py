"""Retention and `tree --write` in histories, and the judge of what retention may delete."""

import pytest

from tests.simulation.campaign import Counts, Plan, run
from tests.simulation.clients import Ledger, Retired, Violation
from tests.simulation.expected import DELETION, EVENT, JOB, Stored
from tests.simulation.promises import check_records
from tests.simulation.workload import Value, dumps, event, job

pytestmark = pytest.mark.timeout(900)  # it is all calculation: beside other load it takes long
_AGED = dumps({"jobId": "j0", "why": "age"})
_OVER = dumps({"jobId": "j0", "why": "jobs"})


def test_histories_retire_jobs_and_write_them_back() -> None:
    """Retention deletes jobs, some leave the tree, and some of these are asked for."""
    counts = Counts()
    for seed in (7, 15, 39, 47):
        counts.add(run(seed, Plan(sample=0.002, nested=0.0, fault_odds=0.0)))
    assert counts.retired > 3
    assert counts.jobs_left > 0
    assert counts.written_back > 1


def _records(*values: tuple[int, bytes]) -> list[Stored]:
    return [Stored(i + 1, b"", 0, kind, 0, 1000 + i, payload) for i, (kind, payload) in enumerate(values)]


def _ended(id: str = "j0") -> tuple[int, bytes]:
    return JOB, dumps(job(id=id, status="completed"))


def _judge(records: list[Stored], *retired: Retired) -> None:
    ledger = Ledger()
    ops = {JOB: "storeJob", EVENT: "storeEvent", DELETION: "deleteJob"}
    ledger.loose = {Value(ops[one.kind], one.payload) for one in records if one.kind != DELETION}
    ledger.retired = set(retired)
    check_records(records, ledger)


def test_the_judge_lets_old_jobs_go_and_those_over_the_count() -> None:
    """As of the position up to which retention had looked."""
    _judge(_records(_ended(), (DELETION, _AGED)), Retired(_AGED, 1, 1000, 0))
    _judge(_records(_ended(), _ended("j1"), (DELETION, _OVER)), Retired(_OVER, 2, 0, 1))


@pytest.mark.parametrize(
    ("values", "retired"),
    [
        ([_ended(), (DELETION, _AGED)], None),
        ([_ended(), (DELETION, _AGED)], Retired(_AGED, 1, 999, 0)),  # not old enough
        ([_ended(), (EVENT, dumps(event())), (DELETION, _AGED)], Retired(_AGED, 1, 9999, 0)),
        ([_ended(), (JOB, dumps(job())), (DELETION, _AGED)], Retired(_AGED, 2, 9999, 0)),  # it runs
        ([(EVENT, dumps(event())), (DELETION, _AGED)], Retired(_AGED, 1, 9999, 0)),  # nobody says it ended
        ([_ended(), (DELETION, _AGED), (DELETION, _AGED)], Retired(_AGED, 1, 9999, 0)),  # it is gone
        ([_ended(), (DELETION, _OVER)], Retired(_OVER, 1, 0, 1)),  # there is no other
        ([_ended(), _ended("j1"), (DELETION, _OVER)], Retired(_OVER, 2, 0, 0)),
    ],
)
def test_the_judge_sees_a_deletion_that_comes_too_soon(
    values: list[tuple[int, bytes]], retired: Retired | None
) -> None:
    """Of what nobody set about, or is not old, has not ended, has a newer record, or is not over."""
    with pytest.raises(Violation, match="position"):
        _judge(_records(*values), *([] if retired is None else [retired]))
