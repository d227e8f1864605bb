"""A segment is written again without what was deleted, and nothing else of it changes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.index.connection import connect
from perstack_stored.index.deletions import pending_removals
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal import erasing
from perstack_stored.journal.entry_format import NO_SESSION, Record
from perstack_stored.journal.packing import Logical
from perstack_stored.journal.reader import Chain, segment_name
from perstack_stored.journal.writer import Append
from perstack_stored.model import gaps
from perstack_stored.model.erasures import Erasures
from tests.helpers.datadir import Base, JournalFolder, dumps, setting
from tests.simulation.workload import KINDS, Value, Workload

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
        header = erasing.new_header(source.header)
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
def base(tmp_path: Path) -> Iterator[Base]:
    base = Base(tmp_path, segment_bytes=1 << 13)
    yield base
    base.database.close()
    base.index.close()
    base.reader.close()
    base.journal.close()


def pending(base: Base) -> Erasures:
    return Erasures(one for one, _ in pending_removals(base.database, base.index.place.position))


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
    random, erased = Random(seed), 0
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
            erased += erase(base.folder, pending(base), packed=random.random() < 0.5)
            base.reader.chain.drop_replaced()
    base.follow()
    erased += erase(base.folder, pending(base))
    assert erased > 50
    base.reader.chain.drop_replaced()
    assert base.index.note_erased(base.index.place.position)
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
