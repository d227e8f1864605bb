"""Lists every file that the tree may hold, from an index that has reached the end of the journal."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from perstack_stored.index.event_reader import count_events, events_of_run
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model import json_text
from perstack_stored.model.run_settings import setting_text
from perstack_stored.tree.old_jobs import OldJobs
from perstack_stored.tree.write import event_name

JOB_NAME = "job.json"
SETTING_NAME = "run-setting.json"

_SETTINGS = """
SELECT run.job, run.name, s.updated_at, s.rewritten, s.position, s.segment, s.offset, s.length
FROM setting s CROSS JOIN run ON run.id = s.run
"""


class ExpectedFile(NamedTuple):
    """A file of the tree.

    Attributes:
        position: of its record; for a setting, that of the first one stored.
        folders, name: its path.
        content: reads what it holds.
        is_left_out: it need not be there.
    """

    position: int
    folders: tuple[str, ...]
    name: str
    content: Callable[[], bytes]
    is_left_out: bool = False


def count_expected(database: sqlite3.Connection) -> int:
    """Count the files that the tree holds, with those that are left out."""
    return count_events(database) + sum(
        int(database.execute(f"SELECT count(*) FROM {table} WHERE segment > 0").fetchone()[0])  # noqa: S608
        for table in ("job", "checkpoint", "setting")
    )


def expected_files(
    database: sqlite3.Connection, reader: JournalReader, old_jobs: OldJobs
) -> Iterator[ExpectedFile]:
    """List the files that the tree holds, with those that are left out, folder by folder.

    Contents are read on demand.
    """
    left_out = old_jobs.left_out
    known: dict[str, bool] = {}

    def is_out(job: str) -> bool:
        if job not in known:
            known.clear()  # mostly the next one is of the same job
            known[job] = old_jobs.is_out(job)
        return known[job]

    def stored(segment: int, offset: int, length: int) -> Callable[[], bytes]:
        return lambda: reader.payload(segment, offset, length)

    for job, position, *place in database.execute("SELECT id, position, segment, offset, length FROM job"):
        payload = stored(*place)

        def text(payload: Callable[[], bytes] = payload) -> bytes:
            return json_text.indent(payload())

        yield ExpectedFile(position, ("jobs", job), JOB_NAME, text, is_out(job))
    for job, id, position, *place in database.execute(
        "SELECT job, id, position, segment, offset, length FROM checkpoint"
    ):
        of_job = ("jobs", job, "checkpoints")
        yield ExpectedFile(position, of_job, f"{id}.json", stored(*place), is_out(job))
    for job, run, updated_at, rewritten, position, *place in database.execute(_SETTINGS):
        payload = stored(*place)

        def setting(
            payload: Callable[[], bytes] = payload, at: float = updated_at, again: int = rewritten
        ) -> bytes:
            return setting_text(payload(), at, rewritten=bool(again))

        yield ExpectedFile(position, ("jobs", job, "runs", run), SETTING_NAME, setting, is_out(job))
    for id, job, run in database.execute("SELECT id, job, name FROM run"):
        folders = ("jobs", job, "runs", run)
        out = is_out(job)
        for event in events_of_run(database, id):
            name = event_name(event.timestamp, event.step, event.type, event.n)
            content = stored(event.segment, event.offset, event.length)
            is_left_out = out or left_out.has_event(event.position, event.type)
            yield ExpectedFile(event.position, folders, name, content, is_left_out)
