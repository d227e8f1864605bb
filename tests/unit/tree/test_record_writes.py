"""Events that are taken as columns have the files that they have one by one."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from perstack_stored.journal.record_columns import RecordColumns
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model.kinds import Kind
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree.blocked import BlockedRecord
from perstack_stored.tree.left_out import LeftOut
from perstack_stored.tree.old_jobs import OldJobs
from perstack_stored.tree.passed_over import PassedOver
from perstack_stored.tree.record_files import RecordFiles
from perstack_stored.tree.record_writes import RecordWrites, Wanted
from tests.helpers.datadir import Base, checkpoint, event, job, setting

TYPES = ("startRun", "streamText", "callTool", "stopRun")


class Maker:
    """Makes the writes of a base's records."""

    def __init__(self, base: Base, left_out: LeftOut, passed_over: PassedOver | None = None) -> None:
        old_jobs = OldJobs(base.database, left_out)
        records = RecordFiles(base.database, base.reader, old_jobs)
        self.status = WorkerStatus()
        self.writes = RecordWrites(base.database, records, passed_over or PassedOver(()), self.status)
        self.entries: list[Entry] = list(base.reader.entries(base.reader.start(), base.index.place))

    def made(self, wanted: Wanted) -> list[tuple[Any, ...]]:
        """All writes, with their contents."""
        pieces = self.writes.pieces(self.entries, wanted)
        assert wanted.is_named is not any(isinstance(piece, RecordColumns) for piece in pieces)
        return [(write[:3], write.content(), write[4:]) for write in self.writes.of(pieces, wanted)]


def values(random: Random) -> Iterator[tuple[Kind, dict[str, Any]]]:
    """Mostly events: some share a name, some are stored twice, some come late or have odd values."""
    timestamp, made = 1_700_000_000_000, [event()]
    while True:
        timestamp += random.choice((0, 0, 1, 7))
        fields = {
            "timestamp": timestamp + random.choice((0, 0, 0, 0.5, -100)),
            "stepNumber": random.randrange(2),
            "type": random.choice(TYPES),
            "id": random.choice(("same", f"{random.random()}", "\ud800")),
            "jobId": f"job-{random.randrange(2)}",
            "runId": f"run-{random.randrange(2)}",
        }
        made.append(event(**fields))
        yield Kind.EVENT, made[-2 if random.random() < 0.05 else -1]
        if random.random() < 0.02:
            yield Kind.JOB, job(id=f"job-{random.randrange(3)}", n=len(made))
            yield Kind.CHECKPOINT, checkpoint(n=len(made))
            yield Kind.RUN_SETTING, setting()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base of entries of one to twenty records, in several segments."""
    base, random = Base(tmp_path_factory.mktemp("base"), segment_bytes=1 << 14), Random(39)
    some = values(random)
    while base.journal.mark.position < 1500:
        base.store(*(next(some) for _ in range(random.choice((1, 1, 2, 20)))))
    assert len(base.folder.segments()) > 5
    (twins,) = base.database.execute("SELECT count(*) FROM twin WHERE n > 1").fetchone()
    (repeats,) = base.database.execute("SELECT count(*) FROM twin WHERE n = 0").fetchone()
    assert min(twins, repeats) > 10
    return base


LEFT_OUT = LeftOut().changed(300, TYPES[1:2]).changed(700, TYPES[1:3]).changed(900, ()).changed(1100, TYPES)


@pytest.mark.parametrize("left_out", [LeftOut(), LEFT_OUT, LEFT_OUT._replace(jobs_until=400)])
@pytest.mark.parametrize("replay_until", [0, 777, 1 << 40])
@pytest.mark.parametrize("start", [1, 2, 555, 1499])
def test_columns_give_the_files_that_single_records_give(
    filled: Base, left_out: LeftOut, replay_until: int, start: int
) -> None:
    """From any record on, whatever is left out, before and after the end of a replay."""
    maker = Maker(filled, left_out)
    wanted = Wanted(range(start, filled.journal.mark.position - 3), replay_until, is_named=False)
    found = maker.made(wanted)
    assert found == maker.made(wanted._replace(is_named=True))
    assert {write[0] for write, *_ in found} <= set(wanted.positions)
    assert not maker.status.position


def test_a_record_that_is_passed_over_is_not_decoded(filled: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither among others: a worker died at it."""
    blocked = BlockedRecord(500)
    maker = Maker(filled, LeftOut(), PassedOver([blocked]))
    wanted = Wanted(range(1, 1000), 0, is_named=False)
    assert maker.writes.pieces(maker.entries, wanted) == maker.entries
    decoded = []
    as_write = RecordFiles.as_write

    def noted(self: RecordFiles, position: int, kind: int, payload: memoryview, n: int) -> Any:
        decoded.append(position)
        return as_write(self, position, kind, payload, n)

    monkeypatch.setattr(RecordFiles, "as_write", noted)
    maker.writes.of(maker.writes.pieces(maker.entries, wanted), wanted)
    assert 499 in decoded or 501 in decoded
    assert 500 not in decoded
    assert maker.made(wanted._replace(positions=range(501, 1000)))


def test_the_status_shows_where_columns_begin(filled: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the death of a worker is counted, and the next one takes small steps."""
    maker, shown = Maker(filled, LeftOut()), []
    at = WorkerStatus.at

    def noted(self: WorkerStatus, position: int) -> None:
        shown.append(position)
        at(self, position)

    monkeypatch.setattr(WorkerStatus, "at", noted)
    wanted = Wanted(range(40, 1000), 0, is_named=False)
    pieces = maker.writes.pieces(maker.entries, wanted)
    maker.writes.of(pieces, wanted)
    begin = {columns.positions[0] for columns in pieces if isinstance(columns, RecordColumns)}
    assert {position for position in begin if position in wanted.positions} <= set(shown)
    assert shown[-1] == 0
