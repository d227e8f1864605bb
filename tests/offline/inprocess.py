"""What a start and the offline tools do with a base, without processes: thousands of damages are tried."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, DataDir
from perstack_stored.datadir.pending_repair import refuse_unfinished
from perstack_stored.index.connection import connect
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.offline.check.check import check
from perstack_stored.offline.findings import Finding, Report
from perstack_stored.offline.locked import keeping_sessions, locked_datadir, slices
from perstack_stored.offline.repair.repair import FINDINGS, NOTES, repair
from perstack_stored.projection.index_projection import IndexOpening, IndexProjection
from perstack_stored.read import queries
from perstack_stored.read.arguments import check_arguments
from perstack_stored.read.source import Source
from perstack_stored.startup import known_position
from perstack_stored.tree.writer import TreeWriter

Items = list[Any]


def lines_of(found: list[Finding]) -> list[tuple[str, dict[str, Any]]]:
    return [(finding.name, finding.facts) for finding in found]


class EndingFiles(FileSystem):
    """Real files, for what leaves it to the end of its process to close them."""

    def __init__(self) -> None:
        super().__init__()
        self._open: set[int] = set()

    def open_dir(self, name: str, *, dir_fd: int | None = None) -> int:
        return self._noted(super().open_dir(name, dir_fd=dir_fd))

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        return self._noted(super().create(name, mode, dir_fd=dir_fd))

    def open(self, name: str, *, dir_fd: int, write: bool = False) -> int:
        return self._noted(super().open(name, dir_fd=dir_fd, write=write))

    def create_unnamed(self, mode: int, *, dir_fd: int) -> int:
        return self._noted(super().create_unnamed(mode, dir_fd=dir_fd))

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        super().close(fd)

    def _noted(self, fd: int) -> int:
        self._open.add(fd)
        return fd

    def end(self) -> None:
        """Close what is still open."""
        for fd in list(self._open):
            self.close(fd)
        if self._own_fds is not None:
            super().close(self._own_fds)
            self._own_fds = None


@contextmanager
def _ending(held: DataDir) -> Iterator[DataDir]:
    """The base as a process has it that ends then."""
    files = EndingFiles()
    try:
        yield held._replace(files=files)
    finally:
        files.end()


class Checked:
    """What `check` says."""

    def __init__(self, base: Path) -> None:
        found: list[Finding] = []
        with locked_datadir(str(base), "check", reads_only=True) as whole, _ending(whole) as held:
            check(held, Report(found.append))
        self.findings = {finding.name for finding in found if not finding.is_note}
        self.notes = {finding.name for finding in found if finding.is_note}
        self.lines = lines_of(found)

    def positions(self, name: str) -> set[int]:
        """All positions in ranges of this name."""
        return positions(self.lines, name)


class Repaired:
    """What `repair` did and said."""

    def __init__(self, base: Path, *, dry_run: bool = False, files: FileSystem | None = None) -> None:
        found: list[Finding] = []
        report = Report(found.append, FINDINGS, NOTES)
        with (
            locked_datadir(str(base), "repair", reads_only=dry_run, repairs=True) as whole,
            _ending(whole) as held,
        ):
            self.done = repair(held if files is None else held._replace(files=files), report, dry_run=dry_run)
        self.lines = lines_of(found)
        self.compared = report.compared
        self.findings = report.findings

    @property
    def damage(self) -> list[dict[str, Any]]:
        """What was found damaged."""
        return [facts for name, facts in self.lines if name == "journal_damage"]

    @property
    def gone(self) -> set[int]:
        """The positions that are gone, by whatever name."""
        found = {facts["position"] for name, facts in self.lines if name == "record_gone"}
        for name in ("records_gone", "older_gone", "repeat_gone"):
            found |= positions(self.lines, name)
        return found


def positions(lines: list[tuple[str, dict[str, Any]]], name: str) -> set[int]:
    ranges = [(facts["first"], facts["last"]) for found, facts in lines if found == name]
    return {n for first, last in ranges for n in range(first, last + 1)}


class Started:
    """A base as a daemon finds it at start: journal recovered, index and tree followed; then asked."""

    def __init__(self, base: Path) -> None:
        """Start.

        Raises:
            StoredError: as a daemon would.
        """
        self.sessions: Sessions = keeping_sessions(Settings())
        with (
            locked_datadir(str(base), "test", reads_only=False, repairs=True) as whole,
            _ending(whole) as held,
        ):
            files, folders = held.files, held.folders
            refuse_unfinished(files, folders.stored)
            journal = JournalWriter(
                files,
                folders.journal,
                self.sessions,
                JournalOptions(1 << 20, 64 << 10, ahead=False),
                known_position=lambda store: known_position(held, store),
            )
            self.torn_bytes = journal.recovered.torn_bytes
            self.mark = journal.mark
            path = str(base / ".stored" / INDEX_NAME)
            reader = JournalReader(files, folders.journal)
            self._follow_index(path, reader, journal)
            self._follow_tree(held, path, reader, journal)
            self.answers = self._ask(path, reader)
            journal.close()
            reader.close()

    def _follow_index(self, path: str, reader: JournalReader, journal: JournalWriter) -> None:
        with closing(IndexProjection(path, reader, journal.store, IndexOpening(at_rest=True))) as projection:
            place = projection.start(reader, journal.mark)
            for portion in slices(reader.entries(place, journal.mark)):
                projection.apply(portion)

    def _follow_tree(self, held: DataDir, path: str, reader: JournalReader, journal: JournalWriter) -> None:
        with closing(connect(path, read_only=True)) as database:
            tree = TreeWriter(held, database, reader, journal.store)
            place = reader.seek(tree.position, journal.mark)
            tree.plan_replay(reader.entries(place, journal.mark))
            for portion in slices(reader.entries(reader.seek(tree.position, journal.mark), journal.mark)):
                tree.apply(portion)
            tree.sync(clean=True)
            tree.close()

    def _ask(self, path: str, reader: JournalReader) -> dict[str, Items]:
        """Every read there is, of everything there is. A refusal appears as its code."""
        with closing(connect(path, read_only=True)) as database:
            return self._asked(Source(database, reader))

    def _asked(self, source: Source) -> dict[str, Items]:
        found = {"readAll": _answer(source, "readAll")}
        stored = [item["value"] for item in found["readAll"]]
        runs = {(value["jobId"], value["runId"]) for value in stored if "runId" in value}
        jobs = {job for job, _ in runs} | {value["id"] for value in stored if "totalSteps" in value}
        for op in ("getAllJobs", "getAllRuns"):
            found[op] = _answer(source, op)
        for job in sorted(jobs):
            found[f"job {job}"] = _answer(source, "retrieveJob", jobId=job)
            found[f"checkpoints {job}"] = _answer(source, "getCheckpointsByJobId", jobId=job)
        for job, run in sorted(runs):
            for op in ("getEventsByRun", "getEventContents"):
                found[f"{op} {job} {run}"] = _answer(source, op, jobId=job, runId=run)
        return found


def _answer(source: Source, op: str, **arguments: Any) -> Any:
    answer = queries.OPERATIONS[op](source, check_arguments(op, arguments))
    return json.loads(b"".join(answer.pieces))


def untimed(answers: dict[str, Items]) -> dict[str, Items]:
    """The answers without the times of records that were written again."""
    read_all = [
        {name: value for name, value in item.items() if name != "time"} for item in answers["readAll"]
    ]
    return {**answers, "readAll": read_all}
