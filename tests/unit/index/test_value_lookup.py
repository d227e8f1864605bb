"""A row of the index that has changed is the index's fault, and not the journal's."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.errors import DamageError, IndexUnusableError
from perstack_stored.index.connection import connect
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, checkpoint, dumps, event, job, setting
from tests.helpers.index import count_events, events_to_rows

RUN = {"jobId": "job-1", "runId": "run-1"}
READS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "job": [("retrieveJob", {"jobId": "job-1"}), ("getAllJobs", {})],
    "checkpoint": [
        ("retrieveCheckpoint", {"jobId": "job-1", "checkpointId": "cp-1"}),
        ("getCheckpointsByJobId", {"jobId": "job-1"}),
    ],
    "event": [("getEventContents", RUN)],
    "setting": [("getAllRuns", {})],
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """A base with a value of each kind, twice."""
    base = Base(tmp_path / "base")
    for _ in range(2):
        base.store(
            (Kind.JOB, job()),
            (Kind.CHECKPOINT, checkpoint()),
            (Kind.EVENT, event()),
            (Kind.RUN_SETTING, setting()),
        )
    return base


def change(base: Base, statement: str) -> None:
    """Change the index as no daemon would."""
    with contextlib.closing(connect(base.index_path, read_only=False)) as database:
        events_to_rows(database)
        assert database.execute(statement).rowcount > 0


def flip(base: Base, value: bytes) -> None:
    """Flip a bit of a value in the journal, wherever it stands."""
    path = base.folder.segments()[0]
    path.write_bytes(path.read_bytes().replace(value, value[:10] + bytes([value[10] ^ 1]) + value[11:]))


@pytest.mark.parametrize(
    "changed",
    [
        "segment = 2",
        "segment = -1",
        "offset = offset + 8",
        "offset = offset + 65536",
        "offset = -offset",
        "offset = 'x'",
        "length = length + 1",
        "length = length + 1099511627776",
        "length = -1",
        "length = 'x'",
        "crc = crc + 1",
        "crc = 'x'",
    ],
)
def test_a_row_that_has_changed_is_no_damage_of_the_journal(base: Base, changed: str) -> None:
    """Any address that it names now makes the index be built again."""
    for table, reads in READS.items():
        for op, arguments in reads:
            base.ask(op, **arguments)
        change(base, f"UPDATE {table} SET {changed}")
        for op, arguments in reads:
            with pytest.raises(IndexUnusableError, match="a row of the index"):
                base.ask(op, **arguments)


@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE place SET segment = 2",
        "UPDATE place SET segment = 0",
        "UPDATE place SET segment = 'x'",
        "UPDATE place SET offset = offset + 8",
        "UPDATE place SET offset = 65536",
        "UPDATE place SET offset = -8",
        "UPDATE place SET offset = (SELECT offset FROM cursor)",
        "UPDATE place SET offset = 'x'",
        "UPDATE place SET position = 100",
        "DELETE FROM place",
        "UPDATE cursor SET offset = offset - 8",
        "UPDATE cursor SET position = position - 1",
        "UPDATE cursor SET segment = 2",
        "UPDATE cursor SET store = 'x'",
        "DELETE FROM cursor",
    ],
)
def test_a_reader_that_the_index_leads_astray_gets_no_answer(base: Base, changed: str) -> None:
    """Neither damage of the journal, nor a range in which records are missing."""
    ways: list[dict[str, Any]] = [{"after": 4}, {"after": 4, "jobId": "job-1"}]
    for arguments in ways:
        assert [r["position"] for r in base.ask("readAll", **arguments)[0]] == [5, 6, 8]
    change(base, changed)
    for arguments in ways:
        with pytest.raises(IndexUnusableError):
            base.ask("readAll", **arguments)


def test_a_place_after_the_record_that_is_asked_for_leaves_nothing_out(base: Base) -> None:
    """Its position has changed, so that it seems to lie before."""
    for n in range(40):
        base.store((Kind.JOB, job(id=f"j{n}", text="x" * 20_000)))
    places = base.database.execute("SELECT position FROM place ORDER BY position").fetchall()
    assert len(places) > 2
    change(base, f"DELETE FROM place WHERE position < {places[-1][0]}")
    change(base, "UPDATE place SET position = 1")
    with pytest.raises(IndexUnusableError, match="no entry"):
        base.ask("readAll")


def test_a_repeat_of_an_event_whose_row_has_changed_is_not_stored_as_another(base: Base) -> None:
    """The writer meets it first."""
    change(base, "UPDATE event SET offset = offset + 8")
    with pytest.raises(IndexUnusableError):
        base.store((Kind.EVENT, event()))


def test_a_repeat_of_an_event_that_is_damaged_is_kept_as_another(base: Base) -> None:
    """Nobody can tell that it was the same; what was sent again is there."""
    flip(base, dumps(event()))
    base.store((Kind.EVENT, event()))
    assert count_events(base.database) == 2


def test_a_setting_that_does_not_match_is_not_written_to_the_tree(base: Base) -> None:
    """Neither what a changed row names, nor what has changed in the journal."""
    setting_of = base.open_tree()._records.setting
    assert setting_of("job-1", "run-1", 1) is not None
    change(base, "UPDATE setting SET offset = offset + 8")
    with pytest.raises(IndexUnusableError):
        setting_of("job-1", "run-1", 1)
    change(base, "UPDATE setting SET offset = offset - 8")
    flip(base, dumps(setting()))
    with pytest.raises(DamageError, match="checksum"):
        setting_of("job-1", "run-1", 1)
