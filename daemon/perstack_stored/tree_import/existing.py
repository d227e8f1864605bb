"""What the journal holds of the jobs that are to be imported, and what that means for a file. No writing.

A file whose value is there already is never stored again, so an import that was cut short is taken up by
running it again.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import RecordPlace
from perstack_stored.journal.reader import Entry, JournalReader, LogPosition
from perstack_stored.model import json_text, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.values import Value

from .plan import digest_of


class Verdict(StrEnum):
    """What is to be done with a file."""

    TAKE = "take"
    HELD = "held"  # the journal has this value, as the newest one or before it
    KEEP = "keep"  # the journal has another value, and keeps it
    OVERWRITE = "overwrite"  # the same, but it was asked for the file's


class _Newest(NamedTuple):
    """The value that counts under an identity."""

    digest: bytes
    time_ms: int
    imported: bool
    updated_at: float  # of settings
    sent_at: float  # the same as it was sent


class ExistingRecords:
    """The values of some jobs in the journal."""

    def __init__(self, jobs: set[str]) -> None:
        self._jobs = jobs
        self._digests: set[bytes] = set()
        self._newest: dict[tuple[str, ...], _Newest] = {}

    def collect(self, reader: JournalReader, until: LogPosition) -> Iterator[int]:
        """Take up the journal; yields how many records each entry has.

        Raises:
            DamageError: an entry on the way is not valid.
        """
        for entry in reader.entries(reader.start(), until):
            for place in entry_format.record_places(entry.data, entry.header):
                self._record(entry, place)
            yield entry.header.count

    def _record(self, entry: Entry, place: RecordPlace) -> None:
        if place.kind == Kind.GAP:
            return
        payload = entry.data[place.start : place.start + place.length]
        value = values.decode(place.kind, payload)
        if job_of(value) in self._jobs:
            counts = place.flags & (entry_format.FLAG_IMPORTED | entry_format.FLAG_RESTORED)
            self._note(place.kind, value, bytes(payload), entry.header.time_ms, imported=bool(counts))

    def has(self, digest: bytes) -> bool:
        """Whether the journal holds an event with this digest."""
        return digest in self._digests

    def stored(self, kind: int, payload: bytes, time_ms: int) -> None:
        """Note what has just been imported."""
        self._note(kind, values.decode(kind, payload), payload, time_ms, imported=True)

    def _note(self, kind: int, value: Value, payload: bytes, time_ms: int, *, imported: bool) -> None:
        digest = _digest(kind, payload)
        self._digests.add(digest)
        if isinstance(value, values.Event):
            return
        identity = identity_of(value)
        updated_at = value.updatedAt if isinstance(value, values.RunSetting) else 0
        before = self._newest.get(identity)
        if before is not None and isinstance(value, values.RunSetting) and not imported:
            # The first one counts; storing it again only changed its time.
            self._newest[identity] = before._replace(updated_at=max(before.sent_at, time_ms))
            return
        self._newest[identity] = _Newest(digest, time_ms, imported, updated_at, updated_at)

    def verdict(self, kind: int, payload: bytes, written_ms: int, *, force: bool) -> Verdict:
        """What is to be done with a file of a plan.

        A newer value of the journal is never overwritten without `force`. What a client stored counts as
        newer than any file; what was imported, as newer than files that were last written before that.
        """
        digest = _digest(kind, payload)
        if kind == Kind.EVENT:
            return Verdict.HELD if digest in self._digests else Verdict.TAKE
        value = values.decode(kind, payload)
        newest = self._newest.get(identity_of(value))
        if newest is None:
            return Verdict.TAKE
        if digest == newest.digest:
            touched = isinstance(value, values.RunSetting) and value.updatedAt > newest.updated_at
            return Verdict.TAKE if touched else Verdict.HELD
        if force:
            return Verdict.OVERWRITE
        if newest.imported and written_ms > newest.time_ms and kind != Kind.RUN_SETTING:
            return Verdict.TAKE
        return Verdict.HELD if digest in self._digests else Verdict.KEEP


def job_of(value: Value) -> str:
    """Id of the job that a value belongs to."""
    return value.id if isinstance(value, values.Job) else value.jobId


def identity_of(value: Value) -> tuple[str, ...]:
    """What names a job, a checkpoint or a run setting: a later value of one identity replaces the earlier."""
    if isinstance(value, values.Job):
        return (value.id,)
    if isinstance(value, values.Checkpoint):
        return (value.jobId, "checkpoints", value.id)
    return (value.jobId, "runs", value.runId)


def _digest(kind: int, payload: bytes) -> bytes:
    """The same for the same value: a job may be laid out anew in the tree, a setting have a newer time."""
    if kind == Kind.JOB:
        payload = json_text.compact(payload)
    elif kind == Kind.RUN_SETTING:
        found = json_text.span(payload, "updatedAt")
        assert found is not None, "updatedAt is required"
        payload = payload[: found[0]] + payload[found[1] :]
    return digest_of(kind, payload)
