"""Existing records of the jobs to import, and the verdict on a file that follows from them. No writing.

A file whose value is stored already is never stored again, so an import that was interrupted goes on when
it is run again.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import RecordPlace
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions, json_text, values
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.kinds import Kind
from perstack_stored.model.values import Value

from .plan import digest_of


class Verdict(StrEnum):
    """What the import does with a file."""

    TAKE = "take"
    HELD = "held"  # the journal has this value, as the newest one or an earlier one
    KEEP = "keep"  # the journal has another value, and keeps it
    OVERWRITE = "overwrite"  # likewise, but the import was asked to prefer the file's


class _Newest(NamedTuple):
    """The newest value of an identity."""

    digest: bytes
    time_ms: int
    imported: bool
    updated_at: float  # of settings
    sent_at: float  # the same as sent


class ExistingRecords:
    """Values of some jobs in the journal."""

    def __init__(self, jobs: set[str]) -> None:
        self._jobs = jobs
        self._digests: dict[bytes, tuple[str, str]] = {}  # job and run of each
        self._owners: dict[tuple[str, str], tuple[str, str]] = {}  # one object for each
        self._newest: dict[tuple[str, ...], _Newest] = {}
        self._runs: dict[tuple[str, ...], str] = {}  # the run of each newest checkpoint

    def collect(self, reader: JournalReader, until: LogPosition) -> Iterator[int]:
        """Read the journal; yields the count of records of each entry.

        Raises:
            DamageError: an entry is not valid.
        """
        for entry in reader.entries(reader.start(), until):
            for place in entry_format.record_places(entry.data, entry.header):
                self._record(entry, place)
            yield entry.header.count

    def _record(self, entry: Entry, place: RecordPlace) -> None:
        if place.kind == Kind.GAP:
            return
        payload = entry.data[place.start : place.start + place.length]
        if place.kind == Kind.DELETION:
            self._delete(deletions.decode(payload), entry.header.time_ms)
            return
        value = values.decode(place.kind, payload)
        if job_of(value) in self._jobs:
            counts = place.flags & (entry_format.FLAG_IMPORTED | entry_format.FLAG_RESTORED)
            self._note(place.kind, value, bytes(payload), entry.header.time_ms, imported=bool(counts))

    def has(self, digest: bytes) -> bool:
        """Whether the journal holds an event with this digest."""
        return digest in self._digests

    def stored(self, kind: int, payload: bytes, time_ms: int) -> None:
        """Note a value that was just imported."""
        self._note(kind, values.decode(kind, payload), payload, time_ms, imported=True)

    def _note(self, kind: int, value: Value, payload: bytes, time_ms: int, *, imported: bool) -> None:
        digest = _digest(kind, payload)
        owner = values.owner_of(value)
        self._digests[digest] = self._owners.setdefault(owner, owner)
        if isinstance(value, values.Event):
            return
        identity = identity_of(value)
        self._runs[identity] = owner[1]
        updated_at = value.updatedAt if isinstance(value, values.RunSetting) else 0
        before = self._newest.get(identity)
        if before is not None and isinstance(value, values.RunSetting) and not imported:
            # The first one counts; storing it again changed only its time.
            self._newest[identity] = before._replace(updated_at=max(before.sent_at, time_ms))
            return
        self._newest[identity] = _Newest(digest, time_ms, imported, updated_at, updated_at)

    def _delete(self, deletion: Deletion, time_ms: int) -> None:
        if not deletion.is_redaction:
            self._forget(deletion)
        elif deletion.jobId in self._jobs:
            value = values.decode(Kind.RUN_SETTING, deletion.value)
            self._note(Kind.RUN_SETTING, value, deletion.value, time_ms, imported=True)

    def _forget(self, deletion: Deletion) -> None:
        """Forget what a deletion removed: a file of it may be stored again."""
        job, run = deletion.jobId, deletion.runId
        if job not in self._jobs:
            return
        self._digests = {
            digest: owner
            for digest, owner in self._digests.items()
            if owner[0] != job or run not in {None, owner[1]}
        }
        for identity in list(self._newest):
            if identity[0] == job and run in {None, self._runs[identity]}:
                del self._newest[identity], self._runs[identity]

    def is_newest(self, kind: int, payload: bytes) -> bool:
        """Whether a job, checkpoint or run setting is the newest value of its identity."""
        newest = self._newest.get(identity_of(values.decode(kind, payload)))
        return newest is not None and newest.digest == _digest(kind, payload)

    def verdict(self, kind: int, payload: bytes, written_ms: int, *, force: bool) -> Verdict:
        """The verdict on a planned file.

        Without `force` a newer value of the journal is never overwritten. A client's value counts as
        newer than any file, an imported one as newer than files last written before the import.
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
    """Identity of a job, checkpoint or run setting: a later value of an identity replaces the earlier."""
    if isinstance(value, values.Job):
        return (value.id,)
    if isinstance(value, values.Checkpoint):
        return (value.jobId, "checkpoints", value.id)
    return (value.jobId, "runs", value.runId)


def _digest(kind: int, payload: bytes) -> bytes:
    """Equal for equal values: the tree may format a job differently, and give a setting a newer time."""
    if kind == Kind.JOB:
        payload = json_text.compact(payload)
    elif kind == Kind.RUN_SETTING:
        found = json_text.span(payload, "updatedAt")
        assert found is not None, "updatedAt is required"
        payload = payload[: found[0]] + payload[found[1] :]
    return digest_of(kind, payload)
