"""`restore --job`: stores what a backup holds of some jobs again, in a base that is not served or new.

The values become new records at the end of the journal, as an import's do. What the base holds byte for byte
is not stored again, so a second run, or one after an interruption, stores what is missing.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from perstack_storage.protocol import resolve_base
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, set_up
from perstack_stored.errors import ConfigError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import FLAG_IMPORTED, FLAG_RESTORED
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model import deletions, values
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.kinds import Kind
from perstack_stored.model.run_settings import setting_text
from perstack_stored.model.values import RunSetting, Value
from perstack_stored.offline.findings import Report
from perstack_stored.offline.import_tree import journal_to_add_to
from perstack_stored.offline.journal_deletions import JournalDeletions
from perstack_stored.offline.locked import locked_datadir, progress
from perstack_stored.tree_import.existing import ExistingRecords, Verdict, identity_of, job_of
from perstack_stored.tree_import.first_start import Storing
from perstack_stored.tree_import.survey import Account

from . import manifest as backup_folder
from .copy import verify_copy
from .manifest import Folder, SegmentCopy
from .restore import copies_up_to, what_it_holds

FINDINGS = {"restore_kept": "the base has another value, which was kept; --force takes the backup's"}
NOTES = {"restore_overwritten": "the base had another value; now the backup's counts, as --force asked"}

Copies = list[tuple[SegmentCopy, int]]


class JobsWanted(NamedTuple):
    """What to restore.

    Attributes:
        jobs: their ids.
        to_position: as the jobs were at this position of the backup; None for its end.
        force: let values of the backup replace others of the base.
    """

    jobs: frozenset[str]
    to_position: int | None
    force: bool


class _Found(NamedTuple):
    """A record of the backup."""

    position: int
    time_ms: int
    kind: int
    flags: int
    payload: bytes
    value: Value


class _Newest:
    """What counts of jobs, checkpoints and run settings in the backup."""

    def __init__(self) -> None:
        self._jobs: dict[str, int] = {}  # position of the last record of each
        self.deletions = JournalDeletions()
        self._positions: dict[tuple[str, ...], int] = {}
        self._updated: dict[tuple[str, ...], float] = {}
        self._runs: dict[tuple[str, ...], str] = {}

    def note(self, found: _Found) -> None:
        """Note a record; they come in order."""
        value = found.value
        self._jobs[job_of(value)] = found.position
        if isinstance(value, values.Event):
            return
        identity = identity_of(value)
        self._runs[identity] = values.owner_of(value)[1]
        counts = found.flags & (FLAG_IMPORTED | FLAG_RESTORED)
        if isinstance(value, RunSetting) and identity in self._positions and not counts:
            # The first one counts; storing it again changed only its time.
            self._updated[identity] = max(self._updated.get(identity, 0), found.time_ms)
            return
        self._positions[identity] = found.position
        self._updated.pop(identity, None)

    def note_deletion(self, position: int, deletion: Deletion) -> None:
        """Note a deletion: a setting stored after it is a first one again."""
        self.deletions.note(position, 0, deletion)
        if deletion.is_redaction:
            return
        for identity in list(self._positions):
            if identity[0] == deletion.jobId and deletion.runId in {None, self._runs[identity]}:
                del self._positions[identity]
                self._updated.pop(identity, None)

    @property
    def jobs(self) -> set[str]:
        """The jobs that have a record which was not deleted with the whole job."""
        return {job for job, position in self._jobs.items() if not self.deletions.has(position, job, "")}

    def payload(self, found: _Found) -> bytes | None:
        """What to store of a record; None if a later one counts, or it was deleted."""
        if self.deletions.has(found.position, *values.owner_of(found.value)):
            return None
        if isinstance(found.value, values.Event):
            return found.payload
        identity = identity_of(found.value)
        if self._positions[identity] != found.position:
            return None
        updated = self._updated.get(identity)
        if updated is None or not isinstance(found.value, RunSetting) or updated <= found.value.updatedAt:
            return found.payload
        return setting_text(found.payload, updated, rewritten=True)


def restore_jobs(
    source: str, base_path: str | None, wanted: JobsWanted, settings: Settings, report: Report
) -> None:
    """Restore jobs into a base; they are on disk when it returns.

    Args:
        source: the folder of the backup; it is only read.
        base_path: the base, which may be new; None for the default.
        wanted: which jobs, and how.
        settings: sizes of segments, and the modes.
        report: takes values that were kept or replaced; `compared` counts.

    Raises:
        ConfigError: it is no backup, or a job is not in it; the base was not touched.
        BackupDamagedError: the backup has changed; likewise.
        BaseHeldError: a daemon or a tool holds the base.
        StorageFullError, DamageError, StoredError: as for an import; the next run goes on.
    """
    with backup_folder.open_folder(FileSystem(), source, make=False) as folder:
        manifest, last = what_it_holds(folder, wanted.to_position)
        copies = copies_up_to(manifest, last)
        newest = _survey(folder, copies, wanted.jobs, last)
        missing = sorted(wanted.jobs - newest.jobs)
        if missing:
            raise ConfigError(f"the backup holds nothing of the job {missing[0]!r} up to position {last}")
        set_up(resolve_base(base_path), settings.folder_mode)
        with locked_datadir(base_path, "restore", reads_only=False) as base:
            journal = journal_to_add_to(base, settings)
            existing = _existing(base, journal, wanted.jobs)
            records = _records(folder, copies, wanted.jobs, last)
            verdicts = _store(base, journal, existing, _Chosen(records, newest, wanted.force), report)
            # After an error the journal stays as a crash leaves it: nothing may be written then.
            journal.close()
    report.compared |= {
        "stored": verdicts[Verdict.TAKE] + verdicts[Verdict.OVERWRITE],
        "held": verdicts[Verdict.HELD],
        "kept": verdicts[Verdict.KEEP],
    }


def _survey(folder: Folder, copies: Copies, jobs: frozenset[str], last: int) -> _Newest:
    """Test the backup, and find what counts of the jobs."""
    newest = _Newest()
    with progress("tested (bytes)", sum(copy.bytes for copy, _ in copies)) as advance:
        for copy, end in copies:
            verify_copy(folder, copy, end)
            for found in _records(folder, [(copy, end)], jobs, last, newest):
                newest.note(found)
            advance(copy.bytes)
    return newest


def _records(
    folder: Folder, copies: Copies, jobs: frozenset[str], last: int, newest: _Newest | None = None
) -> Iterator[_Found]:
    """Records of the jobs, up to a position; `newest` takes the deletions."""
    for copy, _ in copies:
        with backup_folder.open_copy(folder, copy) as (file, header):
            for entry in backup_folder.entries_of(folder, copy, file, header):
                places = entry_format.record_places(entry.data, entry.header)
                for position, place in enumerate(places, entry.header.position):
                    if position > last:
                        return
                    if place.kind == Kind.GAP:
                        continue
                    payload = bytes(entry.data[place.start : place.start + place.length])
                    kind, flags = place.kind, place.flags
                    if kind == Kind.DELETION:
                        deletion = deletions.decode(payload)
                        if newest is not None:
                            newest.note_deletion(position, deletion)
                        if not deletion.is_redaction:
                            continue
                        # It is restored as the setting that it put in the place of the others.
                        kind, flags, payload = Kind.RUN_SETTING, FLAG_RESTORED, deletion.value
                    value = values.decode(kind, payload)
                    if job_of(value) in jobs:
                        yield _Found(position, entry.header.time_ms, kind, flags, payload, value)


def _existing(base: DataDir, journal: JournalWriter, jobs: frozenset[str]) -> ExistingRecords:
    existing = ExistingRecords(set(jobs))
    reader = JournalReader(base.files, base.folders.journal)
    until = journal.mark
    with progress("journal (records)", until.position) as advance:
        for records in existing.collect(reader, until):
            advance(records)
    reader.close()
    return existing


class _Chosen(NamedTuple):
    """The records of the backup, and which of them count."""

    records: Iterator[_Found]
    newest: _Newest
    force: bool


def _store(
    base: DataDir, journal: JournalWriter, existing: ExistingRecords, chosen: _Chosen, report: Report
) -> Counter[Verdict]:
    """Store what is missing, in the order of the backup. Returns counts of verdicts."""
    verdicts: Counter[Verdict] = Counter()
    with Storing(base.files, base.folders.base, journal, Account()) as storing:
        for found in chosen.records:
            payload = chosen.newest.payload(found)
            if payload is None:
                continue
            kind = found.kind
            verdict = existing.verdict(kind, payload, found.time_ms, force=chosen.force)
            if verdict is Verdict.HELD and kind != Kind.EVENT and not existing.is_newest(kind, payload):
                verdict = Verdict.KEEP  # it is an earlier value of the base, too
            verdicts[verdict] += 1
            _report(report, verdict, found)
            if verdict in {Verdict.TAKE, Verdict.OVERWRITE}:
                storing.add(kind, payload)
                existing.stored(kind, payload, journal.clock.now_ms())
    return verdicts


def _report(report: Report, verdict: Verdict, found: _Found) -> None:
    if verdict in {Verdict.KEEP, Verdict.OVERWRITE}:
        name = "restore_kept" if verdict is Verdict.KEEP else "restore_overwritten"
        job, *rest = identity_of(found.value)
        what = {"id": rest[-1]} if rest else {}
        report.add(name, job=job, kind=Kind(found.kind).name.lower(), **what, position=found.position)
