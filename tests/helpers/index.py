"""The index as the tests change it."""

import sqlite3

from perstack_stored.index.event_reader import block_events


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
