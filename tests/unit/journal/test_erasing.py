"""A segment is written again without what was deleted, and nothing else of it changes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import cast

import pytest

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.index import deletions, summaries
from perstack_stored.index.connection import connect
from perstack_stored.index.deletions import pending_removals
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal import erasing
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import NO_SESSION, Record, record_places
from perstack_stored.journal.packing import Logical
from perstack_stored.journal.preallocation import SPARE_NAME
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.writer import Append
from perstack_stored.keeper import eraser
from perstack_stored.keeper.channel import JournalState, KeeperEnd
from perstack_stored.model import gaps
from perstack_stored.model.erasures import Erasures, Removal
from perstack_stored.model.kinds import Kind
from perstack_stored.tree.cursor import Cursor, save_cursor
from tests.helpers.datadir import Base, JournalFolder, dumps, event, setting
from tests.simulation.workload import KINDS, Value, Workload
from tests.unit.keeper.test_pack import PACE

BLOCK_BYTES = 1 << 12


def erase(folder: JournalFolder, erasures: Erasures, *, packed: bool = False) -> int:
    """Erase in all complete segments; returns how many records."""
    files, erased = FileSystem(), 0
    chain = Chain(files, folder.fd)
    for number in range(1, chain.last):
        end = chain.end_of(number)
        assert end is not None
        source = erasing.Source(chain.open(number), number, end)
        blanks = erasing.find_blanks(source, erasures, lambda _: None)
        if not blanks:
            continue
        header = erasing.new_header(source.header, blanks)
        fd = files.create("new.part", FILE_MODE, dir_fd=folder.fd)
        if packed:
            logical = Logical(header, source.end, BLOCK_BYTES)
            erasing.write_packed(files, fd, source, logical, blanks, lambda _: None)
        else:
            erasing.write_plain(files, fd, source, header, blanks, lambda _: None)
        erasing.compare(files, fd, source, header, blanks, lambda _: None)
        files.close(fd)
        files.rename("new.part", segment_name(number), source_dir=folder.fd, target_dir=folder.fd)
        erased += len(blanks)
    chain.close()
    return erased


def store(base: Base, value: Value) -> int:
    """Store a value of the simulated workload, in a segment of its own now and then."""
    kind = KINDS[value.op]
    return base.journal.append([Append(NO_SESSION, 0, [Record(kind, 0, value.payload)])])[0]


def redaction(random: Random, n: int) -> Value:
    names = {"jobId": f"j{random.randrange(2)}", "runId": f"r{random.randrange(2)}"}
    return Value("deleteJob", dumps({**names, "setting": setting(**names, model=f"redacted {n}")}))


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Base]:
    """A base with small segments, and small spans: a span that is not noted is missed."""
    for module in (deletions, summaries, eraser):
        monkeypatch.setattr(module, "SPAN_POSITIONS", 4)
    base = Base(tmp_path, segment_bytes=1 << 13)
    yield base
    base.database.close()
    base.index.close()
    base.reader.close()
    base.journal.close()


class Line:
    """The keeper's end of a line on which nothing new comes."""

    def __init__(self, state: JournalState) -> None:
        self.state = state


class RunningKeeper:
    """The keeper's rounds of erasing, beside an index and a tree that are past everything."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._datadir = DataDir(str(base.path), FileSystem(), base.folders)
        self._eraser = eraser.Eraser(self._datadir, PACE, packs=True)

    def run(self) -> eraser.Outcome:
        base, position = self._base, self._base.index.place.position
        save_cursor(FileSystem(), base.stored_dir, base.journal.store, Cursor(position, clean=True))
        chain = Chain(FileSystem(), base.folder.fd)
        state = JournalState(base.journal.mark.segment, position, erases=True)
        try:
            return self._eraser.run(chain, cast("KeeperEnd", Line(state)))
        finally:
            chain.close()


def pending(base: Base) -> Erasures:
    return Erasures(one for one, _ in pending_removals(base.database, base.index.place.position))


def removed_by(base: Base) -> list[int]:
    """Positions of records that are there though they were deleted."""
    select = "SELECT position, job, run, is_redaction FROM deletion"
    every = Erasures(Removal(*row) for row in base.database.execute(select))
    found = []
    for entry in base.reader.entries(base.reader.start(), base.journal.mark):
        for position, place in enumerate(record_places(entry.data, entry.header), entry.header.position):
            if every.gap_for(position, place.kind, entry.data[place.start : place.start + place.length]):
                found.append(position)
    return found


TABLES = (
    "SELECT job, name, begun, dated, first_position, checkpoints, status, expert, usage, parent, events,"
    " last_position, last_at, types, ended FROM run JOIN run_count ON run = id ORDER BY 1, 2",
    "SELECT name, begun, dated, first_position, status, expert, usage, stored FROM known_job ORDER BY 1",
    "SELECT id, started_at, position, segment, offset, length, crc FROM job ORDER BY 1",
    "SELECT checkpoint.job, checkpoint.id, step, run.name, position, segment, offset, length, crc"
    " FROM checkpoint JOIN run ON run.id = checkpoint.run ORDER BY 1, 2",
    "SELECT older.job, kind, older.id, position, until, step, run.name, segment, offset, length, crc"
    " FROM older LEFT JOIN run ON run.id = older.run ORDER BY 1, 2, 3, 4",
    "SELECT setting.job, setting.name, updated_at, rewritten, lacks, sent_at, position, segment, offset,"
    " length, crc FROM setting ORDER BY 1, 2",
    "SELECT first, last FROM gap",
    "SELECT position, time, job, run, value, crc, is_redaction FROM deletion ORDER BY 1",
    "SELECT position, segment, offset FROM place ORDER BY 1",
    "SELECT position, n FROM twin WHERE n > 1 ORDER BY 1",
)


def content(database: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [database.execute(select).fetchall() for select in TABLES]


@pytest.mark.parametrize("seed", range(5))
def test_an_index_made_from_the_erased_journal_is_as_the_one_that_saw_the_records(
    base: Base, tmp_path: Path, seed: int
) -> None:
    """Jobs, runs and redactions, erased between stores; what lives has the same bytes, the rest is gone."""
    random, erased, keeper = Random(seed), 0, RunningKeeper(base)
    workload = Workload(random)
    payloads: dict[int, bytes] = {}
    for n in range(300):
        kind = random.random()
        value = (
            workload.deletion() if kind < 0.04 else redaction(random, n) if kind < 0.07 else workload.value()
        )
        payloads[store(base, value)] = value.payload
        if random.random() < 0.1:
            base.follow()
        if random.random() < 0.03:
            if random.random() < 0.3:
                erased += erase(base.folder, pending(base), packed=random.random() < 0.5)
            else:
                outcome = keeper.run()
                erased += outcome.records
                base.index.note_erased(outcome.erased_to)
            base.reader.chain.drop_replaced()
    base.follow()
    assert base.journal.begin_segment()
    last = keeper.run()
    assert (last.fault, last.wants_segment, erased + last.records > 50) == ("", False, True)
    base.reader.chain.drop_replaced()
    assert base.index.note_erased(last.erased_to)
    for one in [*removed_by(base), *pending_removals(base.database, 10_000)]:
        assert not one, "a record that was deleted is there"
    assert base.index.pending.deletions == 0
    fresh = IndexWriter(str(tmp_path / "fresh.sqlite"), base.folder.reader(), base.journal.store)
    fresh.apply(base.reader.entries(fresh.place, base.journal.mark))
    with closing(connect(str(tmp_path / "fresh.sqlite"), read_only=True)) as database:
        for found, wanted in zip(content(database), content(base.database), strict=True):
            assert found == wanted
    fresh.close()
    for stored in base.folder.read(base.journal.mark):
        assert stored.payload == payloads[stored.position] or gaps.decode(stored.payload).removed
    assert not base.ask("readAll", after=0)[1].get("gaps")


def test_an_event_that_repeats_another_is_looked_for_too(base: Base) -> None:
    """No read shows it, but it stands in the journal, maybe far from all else of its job."""
    base.store((Kind.EVENT, event()))
    for n in range(20):
        base.store((Kind.EVENT, event(id=f"e{n}", jobId="other", timestamp=n)))
    repeat = base.store((Kind.EVENT, event()))
    base.store(*[(Kind.EVENT, event(id=f"f{n}", jobId="other", timestamp=n)) for n in range(20)])
    position = base.store((Kind.DELETION, {"jobId": "job-1"}))
    ((_, spans),) = pending_removals(base.database, position)
    assert repeat // 4 in spans
    assert len(spans) == 2


def test_copies_that_recovery_left_are_erased(tmp_path: Path) -> None:
    """They stand after the end of a segment, and again in the next one."""
    folder = JournalFolder(tmp_path / "journal")
    journal = folder.open()
    journal.append([Append(NO_SESSION, 0, [Record(Kind.EVENT, 0, dumps(event(jobId="kept")))])])
    journal.write([Append(NO_SESSION, 0, [Record(Kind.EVENT, 0, dumps(event(jobId="gone")))])])
    again = folder.open()
    assert again.recovered.kept
    first = folder.segments()[0]
    assert b'"gone"' in first.read_bytes()
    erasures = Erasures([Removal(100, "gone", None, is_redaction=False)])
    assert erase(folder, erasures) == 1
    assert b'"gone"' not in first.read_bytes()
    assert len(folder.read(again.mark)) == 2
    again.close()


def test_nothing_is_called_erased_while_the_log_of_the_index_holds_it(base: Base) -> None:
    """A reader keeps it there for as long as its transaction lasts."""
    base.store((Kind.EVENT, event()))
    base.database.execute("BEGIN")
    base.database.execute("SELECT count(*) FROM run").fetchone()
    position = base.store((Kind.DELETION, {"jobId": "job-1"}))
    assert not base.index.note_erased(position)
    assert base.index.pending.deletions == 1
    base.database.execute("COMMIT")
    assert base.index.note_erased(position)
    assert base.index.pending.deletions == 0
    base.database.execute("PRAGMA cache_size = 0")
    assert b"run-1" not in Path(base.index_path).read_bytes()


def test_no_file_with_old_bytes_is_used_while_some_must_go(tmp_path: Path) -> None:
    """One that waits is removed, one that is ready is made again; later files may be used again."""
    folder = JournalFolder(tmp_path / "journal")
    journal = folder.open()
    (folder.path / SPARE_NAME).write_bytes(b"PSTKJNL1 old bytes".ljust(1 << 14, b"!"))
    journal.allow_spares(allowed=False)
    journal.offer_spare()
    assert SPARE_NAME not in folder.snapshot()
    flags = []
    for allowed in (False, True):
        journal.allow_spares(allowed=allowed)
        (folder.path / SPARE_NAME).write_bytes(b"PSTKJNL1 old bytes".ljust(1 << 14, b"!"))
        journal.offer_spare()
        assert journal.begin_segment()
        flags.append(journal.is_recycled)
    assert flags == [False, True]
    journal.close()
