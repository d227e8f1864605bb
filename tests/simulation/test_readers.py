"""Readers of simulated histories ask while the index lags, and are shown nothing that was deleted before."""

import json

import pytest

from perstack_stored.read.subscriptions import _Wait
from tests.simulation.campaign import Counts, FoundError, Plan, Violation, run
from tests.simulation.expected import DELETION, EVENT, Stored
from tests.simulation.shown import Asked, check_answer
from tests.simulation.workload import dumps, event

pytestmark = pytest.mark.timeout(900)  # it is all calculation: beside other load it takes long
UNDISTURBED = Plan(sample=0.0, nested=0.0, fault_odds=0.0)


def test_readers_ask_while_the_index_does_not_know_of_a_deletion() -> None:
    """Histories with readers go well, and the readers come at the moments that matter."""
    counts = Counts()
    for seed in (2, 14):
        counts.add(run(seed, UNDISTURBED))
    assert counts.reads > 80
    assert counts.reads_behind > 10


def test_a_daemon_that_shows_what_was_deleted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that waits, and is answered before the index has the deletion that came before it."""
    monkeypatch.setattr(_Wait, "has_records", lambda wait, indexed: wait.after < indexed)
    with pytest.raises(FoundError, match=r"waitMs.* not as of|before the index knew"):
        run(14, UNDISTURBED)


def test_a_job_that_is_shown_in_part_is_found() -> None:
    """Two events and their deletion: an answer shows both, or neither, or what was asked for."""
    values = [event(id=f"e{n}", timestamp=n) for n in (1, 2)]
    records = [Stored(n, b"", 0, EVENT, 0, 0, dumps(value)) for n, value in enumerate(values, 1)]
    deletion = {"jobId": "j0"}
    records.append(Stored(3, b"", 0, DELETION, 0, 0, dumps(deletion)))
    items = [{"position": n, "op": "storeEvent", "value": value} for n, value in enumerate(values, 1)]
    asked = Asked({"after": 0, "waitMs": 1}, 0)
    for shown in (items, []):
        check_answer(asked, 2, shown, records)
    check_answer(Asked({"after": 1}, 0), 2, items[1:], records)
    for shown in (items[:1], items[1:]):
        with pytest.raises(Violation, match="shows of j0"):
            check_answer(asked, 2, shown, records)
    with pytest.raises(Violation, match="shows of j0"):
        check_answer(asked._replace(least=3), 2, items, records)
    with pytest.raises(Violation, match="another value"):
        check_answer(asked, 2, [items[0], items[1] | {"value": json.loads(records[0].payload)}], records)
