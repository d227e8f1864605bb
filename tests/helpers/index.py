"""The index as the tests read and change it."""

import sqlite3
from collections.abc import Iterator

from perstack_stored.index.event_reader import block_events, row_events


def events_to_rows(database: sqlite3.Connection) -> None:
    """Move the events out of their blocks into the table `event`, where SQL reaches each."""
    for (run,) in database.execute("SELECT DISTINCT run FROM event_block").fetchall():
        events = list(block_events(database, run))
        database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", events)
    database.execute("DELETE FROM event_block")


def count_events(database: sqlite3.Connection) -> int:
    """Count of the events, lost ones included."""
    (rows,) = database.execute("SELECT count(*) FROM event").fetchone()
    runs = database.execute("SELECT DISTINCT run FROM event_block").fetchall()
    return int(rows) + sum(len(list(block_events(database, run))) for (run,) in runs)


def addresses(database: sqlite3.Connection) -> Iterator[tuple[int, int, int, int]]:
    """Segment, offset, length and crc32c of every value."""
    for table in ("job", "checkpoint", "setting"):
        yield from database.execute(f"SELECT segment, offset, length, crc FROM {table}")
    for (run,) in database.execute("SELECT id FROM run").fetchall():
        for event in (*block_events(database, run), *row_events(database, run)):
            yield event.segment, event.offset, event.length, event.crc
