"""`import`: stores another tree that Perstack wrote in a base that is not served.

The files are checked, ordered and stored as at the first start of a daemon; here the journal may hold other
values of the same jobs, which it keeps.
"""

import os
from collections import Counter

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import DataDir, TreeModes
from perstack_stored.errors import ConfigError
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.startup import open_journal
from perstack_stored.tree.cursor import Cursor, save_cursor
from perstack_stored.tree.options import umask_for
from perstack_stored.tree_import.existing import ExistingRecords, Verdict
from perstack_stored.tree_import.first_start import Storing, import_tree, import_wanted
from perstack_stored.tree_import.plan import Path, Plan, Planned
from perstack_stored.tree_import.survey import Account, SkipError, TreeSurvey

from .findings import Report
from .locked import Advance, count_files, keeping_sessions, progress

FINDINGS = {
    "import_skipped": "a file was not imported",
    "import_conflict": "the base has another, newer value, which was kept; --force takes the file's",
}
NOTES = {
    "import_overwritten": "the base had another value; now the file's counts, as --force asked",
    "import_name_differs": "an event's file has another name than its content asks for; the content counts",
}


def open_source(path: str) -> int:
    """Return a descriptor of the folder that holds the `jobs` of another tree.

    Raises:
        ConfigError: there is no such folder.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    if "jobs" not in os.listdir(fd):
        os.close(fd)
        raise ConfigError(f"{path} has no folder jobs/: name the folder that holds it, as ./perstack does")
    return fd


class ImportResult(Account):
    """Reports what a survey skips, and advances a progress bar."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self.advance: Advance = lambda _steps: None

    def skip(self, path: Path, skip: SkipError) -> None:
        """Count and report a file that is not imported."""
        self.skipped[skip.reason.value] += 1
        self._report.add("import_skipped", path="/".join(path), reason=skip.reason.value, detail=skip.detail)

    def misnamed(self, path: Path, due: str) -> None:
        """Report the file of an event whose content asks for another name."""
        self._report.add("import_name_differs", path="/".join(path), due=due)

    def progress(self, step: str, *, files: int, of: int | None = None) -> None:
        """Ignore the step: `skip`, `seen` and the bar count files themselves."""
        del step, files, of  # a bar counts itself
        self.advance(1)


def import_later(base: DataDir, settings: Settings, source: int, report: Report, *, force: bool) -> None:
    """Import a tree into a locked base; imported records are on disk when it returns.

    Args:
        base: locked by this process.
        settings: sizes of segments, and the modes.
        source: descriptor of the folder that holds `jobs`.
        report: takes skipped files; `compared` counts imported ones.
        force: let values of the tree replace those of the base.

    Raises:
        StorageFullError: there is no room; the next run goes on.
        DamageError: the journal is damaged.
        StoredError: the journal can't be used.
    """
    journal = journal_to_add_to(base, settings)
    _Later(base, journal, source, report, force=force).run()
    # After an error the journal stays as a crash leaves it: after a failed write nothing may be written.
    journal.close()


def journal_to_add_to(base: DataDir, settings: Settings) -> JournalWriter:
    """Open the journal of a locked base, which may be new, to store values of another origin.

    Raises:
        StorageFullError, DamageError, StoredError: as `import_later`.
    """
    umask_for(TreeModes(settings.file_mode, settings.folder_mode))
    journal = open_journal(base, keeping_sessions(settings), settings)
    if import_wanted(base, journal):
        # The base's own tree first: once the base holds records, it is never imported.
        import_tree(base, journal)
        save_cursor(base.files, base.folders.stored, journal.store, Cursor(0, clean=True))
    return journal


class _Later:
    """One import into an open journal."""

    def __init__(
        self, base: DataDir, journal: JournalWriter, source: int, report: Report, *, force: bool
    ) -> None:
        self._base = base
        self._journal = journal
        self._source = source
        self._report = report
        self._force = force
        self._result = ImportResult(report)

    def run(self) -> None:
        result, journal = self._result, self._journal
        with progress("reading (files)", count_files(self._source)) as result.advance:
            plan = TreeSurvey(self._base.files, result).run(self._source)
        existing = self._existing(plan)
        verdicts: Counter[Verdict] = Counter()
        with (
            Storing(self._base.files, self._source, journal, result) as storing,
            progress("storing (files)", len(plan)) as advance,
        ):
            for planned in plan:
                try:
                    verdicts[self._store(storing, existing, planned)] += 1
                except SkipError as skip:
                    result.skip(planned.path, skip)
                advance(1)
        self._report.compared |= {
            "files": result.files,
            "taken": verdicts[Verdict.TAKE] + verdicts[Verdict.OVERWRITE],
            "held": verdicts[Verdict.HELD],
            "kept": verdicts[Verdict.KEEP],
            "skipped": result.skipped.total(),
        }

    def _existing(self, plan: Plan) -> ExistingRecords:
        existing = ExistingRecords({planned.path[1] for planned in plan})
        reader = JournalReader(self._base.files, self._base.folders.journal)
        until = self._journal.mark
        with progress("journal (records)", until.position) as advance:
            for records in existing.collect(reader, until):
                advance(records)
        reader.close()
        return existing

    def _store(self, storing: Storing, existing: ExistingRecords, planned: Planned) -> Verdict:
        if planned.kind == Kind.EVENT and existing.has(planned.digest):
            return Verdict.HELD  # saves reading what an earlier attempt stored
        payload, written_ms = storing.read(planned)
        verdict = existing.verdict(planned.kind, payload, written_ms, force=self._force)
        path = "/".join(planned.path)
        if verdict is Verdict.KEEP:
            self._report.add("import_conflict", path=path)
        elif verdict is Verdict.OVERWRITE:
            self._report.add("import_overwritten", path=path)
        if verdict in {Verdict.TAKE, Verdict.OVERWRITE}:
            storing.add(planned.kind, payload)
            existing.stored(planned.kind, payload, self._journal.clock.now_ms())
        return verdict
