"""Which file a record has in the tree, and its content."""

import sqlite3

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import DamageError, IndexUnusableError, Refusal
from perstack_stored.index.connection import read_cursor
from perstack_stored.index.deletions import Removals
from perstack_stored.index.value_lookup import ValueAddress, read_value
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.model import deletions, json_text, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import setting_text

from .left_out import LeftOut
from .old_jobs import OldJobs
from .write import SETTING_NAME, Write, event_name

_NO_FILE = frozenset({int(Kind.GAP)})


def has_file(kind: int, payload: memoryview) -> bool:
    """Whether a record has a file."""
    if kind == Kind.DELETION:
        return deletions.decode(payload).is_redaction
    return kind not in _NO_FILE


class RecordDeletedError(Exception):
    """A record was deleted while its file was to be written."""


class RecordFiles:
    """The files of records, as index and journal give them."""

    def __init__(self, index: sqlite3.Connection, reader: JournalReader, old_jobs: OldJobs) -> None:
        self._index = index
        self._reader = reader
        self._old_jobs = old_jobs

    @property
    def left_out(self) -> LeftOut:
        """What is left out now."""
        return self._old_jobs.left_out

    def as_write(self, position: int, kind: int, payload: memoryview, n: int) -> Write:
        """The file of a record; `n` numbers events that share a name."""
        if kind == Kind.DELETION:  # a redaction: the index has its setting
            kind, payload = Kind.RUN_SETTING, memoryview(deletions.decode(payload).value)
        value = values.decode(kind, payload)
        if isinstance(value, values.Event):
            is_left_out = self.left_out.has_event(position, value.type)
            name = event_name(value.timestamp, value.stepNumber, value.type, n)
            of_run = ("jobs", value.jobId, "runs", value.runId)
            return Write(position, of_run, name, payload.tobytes, False, value.runId, is_left_out)
        if isinstance(value, values.Checkpoint):
            folders = ("jobs", value.jobId, "checkpoints")
            name = f"{value.id}.json"
            return Write(position, folders, name, payload.tobytes, replaces=True, run=value.runId)
        if isinstance(value, values.Job):
            return Write(
                position,
                ("jobs", value.id),
                "job.json",
                lambda: json_text.indent(payload.tobytes()),
                replaces=True,
            )
        job, run = value.jobId, value.runId
        return Write(
            position,
            ("jobs", job, "runs", run),
            SETTING_NAME,
            lambda: self.setting(job, run, position),
            replaces=True,
            run=run,
        )

    def setting(self, job: str, run: str, position: int) -> bytes:
        """The setting as indexed: as of the record at a position, or newer.

        Raises:
            RecordDeletedError: it was deleted after this position.
        """
        row = self._index.execute(
            "SELECT segment, offset, length, crc, updated_at, rewritten, position FROM setting"
            " JOIN run ON run.id = setting.run WHERE run.job = ? AND run.name = ?",
            (job, run),
        ).fetchone()
        if row is None:
            if Removals(self._index, position).has(position, job, run, is_setting=True):
                raise RecordDeletedError
            raise IndexUnusableError("the index lacks a setting that its cursor covers")
        *where, updated_at, rewritten, position_of_value = row
        try:
            payload = read_value(self._reader, ValueAddress(*where), lambda: read_cursor(self._index))
        except Refusal as refusal:
            if refusal.code == ErrorCode.READ_GONE:
                raise RecordDeletedError from None  # a deletion that the index has yet to see again
            raise DamageError(
                segment_name(where[0]), where[1], position_of_value, "its checksum does not match"
            ) from refusal
        return setting_text(payload, updated_at, rewritten=bool(rewritten))

    def is_newest(self, write: Write) -> bool:
        """Whether no later record has the same file, according to the index."""
        job = write.folders[1]
        if write.kind == "checkpoint":
            statement = "SELECT position FROM checkpoint WHERE job = ? AND id = ?"
            key: tuple[str, ...] = (job, write.name.removesuffix(".json"))
        elif write.kind == "job":
            statement, key = "SELECT position FROM job WHERE id = ?", (job,)
        else:
            return True  # an event has a file of its own, and a setting is written as it is now
        row = self._index.execute(statement, key).fetchone()
        return row is not None and row[0] == write.position
