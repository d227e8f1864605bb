"""What was erased, for `check`: nothing of it may be left, and the index may know numbers that it had.

A fresh index never sees erased records: its runs have other numbers, and it does not know which were repeats.
"""

import contextlib
import sqlite3
from collections.abc import Sequence

from perstack_stored.index.connection import connect
from perstack_stored.journal.entry_format import record_places
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.model.erasures import Erasures, Removal
from perstack_stored.model.gaps import GapRange
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import progress

from .journal import JournalEnd

_OF_RUNS = {
    "run": "id",
    "run_count": "run",
    "checkpoint": "run",
    "older": "run",
    "setting": "run",
    "event": "run",
    "event_block": "run",
}
_OTHERS = (
    "UPDATE copy.known_job SET id = -coalesce("
    "(SELECT a.id FROM main.known_job a WHERE a.name = known_job.name), id + (1 << 40))",
    "UPDATE copy.known_job SET id = -id",
    "UPDATE copy.deletion SET last_run = coalesce("
    "(SELECT a.last_run FROM main.deletion a WHERE a.position = deletion.position), last_run)",
)


def check_erased(path: str, end: JournalEnd, reader: JournalReader, report: Report) -> None:
    """Report records that an index calls erased, and that stand in the journal.

    Args:
        path: of a copy of the index.
        end: end of the journal.
        reader: of the journal.
        report: takes what is found.
    """
    select = "SELECT position, job, run, is_redaction FROM deletion WHERE erased"
    try:
        with contextlib.closing(connect(path, read_only=True)) as database:
            rows = database.execute(select).fetchall()
            removals = [Removal(at, job, run, bool(of_setting)) for at, job, run, of_setting in rows]
            erasures = Erasures(removals)
    except (sqlite3.Error, TypeError) as error:
        report.add("index_damage", reason=str(error))
        return
    if not erasures:
        return
    last = removals[-1].position
    with progress("erased (records)", end.mark.position) as advance:
        for entry in reader.entries(reader.start(), end.mark):
            if entry.header.position > last:
                break
            places = record_places(entry.data, entry.header)
            for position, place in enumerate(places, entry.header.position):
                payload = entry.data[place.start : place.start + place.length]
                if erasures.gap_for(position, place.kind, payload) is not None:
                    report.add("journal_not_erased", segment=segment_name(entry.segment), position=position)
            advance(entry.header.count)


def as_if_never_stored(database: sqlite3.Connection, erased: Sequence[GapRange]) -> None:
    """Give runs and jobs of the attached `copy` the numbers that they have in `main`.

    Raises:
        sqlite3.Error: the copy is damaged.
    """
    execute = database.execute
    execute("BEGIN")
    mapped = "CREATE TEMP TABLE number AS SELECT a.id AS new, b.id AS old FROM main.run a JOIN copy.run b"
    execute(f"{mapped} ON a.job = b.job AND a.name = b.name")
    execute("CREATE INDEX temp.number_old ON number (old)")
    for table, column in _OF_RUNS.items():
        # Below 0 meanwhile: a number that another run still has would be taken twice.
        execute(
            f"UPDATE copy.{table} SET {column} ="  # noqa: S608 - constants
            f" coalesce(-(SELECT new FROM number WHERE old = {table}.{column}), {column})"
        )
        execute(f"UPDATE copy.{table} SET {column} = -{column} WHERE {column} < 0")  # noqa: S608
    for statement in _OTHERS:
        execute(statement)
    # Of an erased run a fresh index may name more checkpoints; it costs nothing.
    execute("DELETE FROM copy.deleted_checkpoint")
    execute("INSERT INTO copy.deleted_checkpoint SELECT * FROM main.deleted_checkpoint")
    for first, last in erased:
        execute("DELETE FROM copy.twin WHERE n = 0 AND position BETWEEN ? AND ?", (first, last))
    execute("COMMIT")
