"""`audit`: reads a tree of any program; reports damaged, misplaced and probably lost files.

It needs no journal, takes no lock, changes nothing and follows no link.
"""

import re
from collections import Counter

import msgspec

from perstack_stored.datadir.filesystem import FileSystem, read_whole
from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.model import values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.values import Value
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import Advance, count_files, progress
from perstack_stored.tree import left_out
from perstack_stored.tree.left_out import LeftOut
from perstack_stored.tree_import.plan import Path, kind_of
from perstack_stored.tree_import.survey import Account, Reason, SkipError, TreeSurvey

from .missing_events import STREAMS, Seen, crowding, signs
from .torn_files import how_torn

FINDINGS = {
    "torn_file": "a file holds a part of a value, or of two: its writer was interrupted, or met another",
    "invalid_value": "a file holds no value that can stand there",
    "wrong_name": "an event's file has another name than its content asks for; Perstack reads it wrongly",
    "wrong_place": "the ids in a file are not those of its path",
    "symbolic_link": "a symbolic link; it was not followed",
    "wrong_type": "something that is no regular file stands in the place of one",
    "too_large": "a file is larger than any value may be; it was not read",
    "unreadable": "a file or folder can't be read",
    "gap_step": "a sign of lost events: a step of a run has none, but later ones have",
    "gap_state": "a sign of lost events: what Perstack's runtime writes in each such step is missing",
    "gap_stream": "a sign of lost events: a streamed text begins without an end, or ends without a beginning",
    "gap_deltas": "a sign of lost events: a streamed text is longer than its pieces together",
    "gap_checkpoint": "a sign of lost files: an event names a checkpoint that is not there",
    "gap_run": "a sign of lost events: a run has checkpoints, but no events",
}
NOTES = {
    "foreign_file": "the tree has no such name; Perstack does not look at it",
    "left_out_unknown": "what a daemon leaves out of this tree by its settings can't be read; gaps may come"
    " of that",
    "job_leaves": "files of this job are being removed, as it is older than tree-keep-days; not judged",
    "no_job": "a job has files, but no job.json; Perstack does not list it",
    "crowded": "an estimate: events of one run, step and type stand so close that some probably shared a"
    " millisecond, and so a file, of which Perstack keeps the last; bursts make it more than this estimate",
}
_SKIPPED = {
    Reason.EMPTY: "torn_file",
    Reason.NOT_JSON: "invalid_value",
    Reason.BAD_VALUE: "invalid_value",
    Reason.WRONG_PLACE: "wrong_place",
    Reason.LINK: "symbolic_link",
    Reason.NOT_A_FILE: "wrong_type",
    Reason.NOT_OURS: "foreign_file",
    Reason.TOO_LARGE: "too_large",
    Reason.UNREADABLE: "unreadable",
}
_EVENT_NAME = re.compile(r"event-(\d{1,16})-(\d{1,16})-([^.]+)(?:\.n\d{4,9})?\.json")
_EVENT_PATH_PARTS = 5


class _Id(msgspec.Struct):
    id: str | None = None


class _Parts(msgspec.Struct):
    """Optional fields of an event that refer to others; no event is refused for them."""

    delta: str | None = None
    text: str | None = None
    checkpoint: _Id | None = None
    nextCheckpoint: _Id | None = None  # noqa: N815 - named as in the values


_PARTS = msgspec.json.Decoder(_Parts)
_SIZED = {f"{verb}{kind}" for kind in STREAMS for verb in ("completeStreaming", "stream")}


class _Job:
    """Findings of a job. Its checkpoints come before its runs."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.has_file = False
        self.is_used = False
        self.checkpoints: set[str] = set()
        self.checkpoint_runs: set[str] = set()
        self.runs: set[str] = set()


def audit(tree: int, report: Report) -> None:
    """Report what is wrong in the tree of an open folder.

    Raises:
        OSError: no descriptors or memory left.
    """
    result = _AuditResult(report)
    with progress("reading (files)", count_files(tree)) as advance:
        result.advance = advance
        record = _left_out(tree, report)
        result.left_out, result.leaving = record.ever, frozenset(record.leaving)
        TreeSurvey(FileSystem(), result).run(tree)
    result.finish()


def _left_out(tree: int, report: Report) -> LeftOut:
    """What the daemon of this tree leaves out, or has left out."""
    files = FileSystem()
    try:
        stored_dir = files.open_dir(STORED_NAME, dir_fd=tree)
    except (FileNotFoundError, NotADirectoryError):
        return LeftOut()  # no daemon writes this tree
    except OSError as error:
        report.add("left_out_unknown", reason=error.strerror)
        return LeftOut()
    try:
        data = read_whole(files, left_out.FILE_NAME, dir_fd=stored_dir)
    except OSError as error:
        report.add("left_out_unknown", reason=error.strerror)
        return LeftOut()
    finally:
        files.close(stored_dir)
    found = None if data is None else left_out.decode(data)
    if data is not None and found is None:
        report.add("left_out_unknown", reason="it has changed")
    return LeftOut() if found is None else found[1]


class _AuditResult(Account):
    """Takes files in the order of their paths: those of a run, and those of a job, are consecutive."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._job: _Job | None = None
        self._run: Path = ()
        self._events: list[Seen] = []
        self._missing: list[tuple[int, str, str]] = []
        self._kinds: Counter[str] = Counter()
        self._lost = 0
        self.advance: Advance = lambda _steps: None
        self.left_out: frozenset[str] = frozenset()
        self.leaving: frozenset[str] = frozenset()

    # --- called by the survey ----------------------------------------------------------------------

    def progress(self, step: str, *, files: int, of: int | None = None) -> None:
        """Ignore the step: the bar counts files itself."""
        del step, files, of  # a bar counts itself
        self.advance(1)

    def skip(self, path: Path, skip: SkipError) -> None:
        """Report an invalid file."""
        self._enter(path)
        name, detail = _SKIPPED[skip.reason], skip.detail
        if skip.payload is not None and skip.reason in {Reason.EMPTY, Reason.NOT_JSON}:
            torn = how_torn(skip.payload)
            name, detail = ("torn_file", torn) if torn else (name, detail)
        self._report.add(name, path="/".join(path), reason=detail)
        if skip.reason is not Reason.NOT_OURS:
            self._there(path)

    def _there(self, path: Path) -> None:
        """Note a file that can't be used as damaged, not lost: its name identifies it."""
        job, name = self._enter(path), path[-1]
        match kind_of(path):
            case Kind.JOB:
                job.has_file = True
            case Kind.CHECKPOINT:
                job.checkpoints.add(name.removesuffix(".json"))
            case Kind.EVENT if match := _EVENT_NAME.fullmatch(name):
                self._events.append(Seen(int(match[1]), int(match[2]), match[3]))

    def misnamed(self, path: Path, due: str) -> None:
        """Report the file of an event whose content asks for another name."""
        self._report.add("wrong_name", path="/".join(path), due=due)

    def seen(self, path: Path, value: Value, payload: bytes) -> None:
        """Note a valid file."""
        job = self._enter(path)
        job.is_used = True
        if isinstance(value, values.Job):
            self._kinds["jobs"] += 1
            job.has_file = True
        elif isinstance(value, values.Checkpoint):
            self._kinds["checkpoints"] += 1
            job.checkpoints.add(value.id)
            job.checkpoint_runs.add(value.runId)
        elif isinstance(value, values.Event):
            self._kinds["events"] += 1
            self._event(job, path, value, payload)
        else:
            self._kinds["settings"] += 1

    def finish(self) -> None:
        """Report on the last job, and the counts."""
        self._enter(())
        self._report.compared |= {"files": self.files, **self._kinds, "presumed_lost": self._lost}

    # --- runs and jobs -----------------------------------------------------------------------------

    def _enter(self, path: Path) -> _Job:
        """The job of a path; earlier ones are complete."""
        run = path[:4] if len(path) == _EVENT_PATH_PARTS and path[2] == "runs" else ()
        if run != self._run:
            self._end_run()
            self._run = run
        id = path[1] if len(path) > 1 else ""
        if self._job is None or self._job.id != id:
            self._end_job()
            self._job = _Job(id)
        return self._job

    def _event(self, job: _Job, path: Path, event: values.Event, payload: bytes) -> None:
        job.runs.add(event.runId)
        parts = _parts(payload)
        size = None
        if event.type in _SIZED:
            text = parts.text if event.type.startswith("complete") else parts.delta
            size = None if text is None else len(text)
        self._events.append(Seen(int(event.timestamp), int(event.stepNumber), event.type, size))
        # The next checkpoint is stored at the end of its step.
        for step, checkpoint in enumerate((parts.checkpoint, parts.nextCheckpoint), int(event.stepNumber)):
            if checkpoint is not None and checkpoint.id and checkpoint.id not in job.checkpoints:
                job.checkpoints.add(checkpoint.id)  # report it once
                self._missing.append((step, "/".join(path), checkpoint.id))

    def _end_run(self) -> None:
        events, self._events = self._events, []
        missing, self._missing = self._missing, []
        if self._job is not None and self._job.id in self.leaving:
            return
        path = "/".join(self._run)
        for step, named_in, checkpoint in missing:
            if step < max([event.step for event in events]):  # otherwise it may be about to be written
                self._report.add("gap_checkpoint", path=named_in, checkpoint=checkpoint)
        for sign in signs(events):
            if sign.types & self.left_out:
                continue
            self._lost += sign.events
            self._report.add(sign.name, path=path, step=sign.step, reason=sign.reason)
        crowd = crowding(events)
        self._kinds["numbered"] += crowd.numbered
        # Numbered events, and a tree that leaves some out, were written by a daemon, which overwrites none.
        if not crowd.numbered and not self.left_out and crowd.expected_lost >= 1:
            self._report.add(
                "crowded", path=path, neighbours=crowd.neighbours, estimate=round(crowd.expected_lost)
            )

    def _end_job(self) -> None:
        job = self._job
        if job is None:
            return
        if job.id in self.leaving:
            self._report.add("job_leaves", path=f"jobs/{job.id}")
            return
        for run in sorted(job.checkpoint_runs - job.runs) if not self.left_out else ():
            self._report.add("gap_run", path=f"jobs/{job.id}/runs/{run}")
        if job.is_used and not job.has_file:
            self._report.add("no_job", path=f"jobs/{job.id}")


def _parts(payload: bytes) -> _Parts:
    try:
        return _PARTS.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return _Parts()
