# Written by client/python/unasync.py from _async/reads.py: change that one.
"""What the synchronous client reads."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Unpack, cast

from perstack_storage._core.answers import Page, arguments_of, as_asked, page_of, records_of, value_of
from perstack_storage._core.epochs import SeenEpochs
from perstack_storage._core.errors import ClosedError
from perstack_storage._core.filters import (
    AsOf,
    CheckpointFilters,
    EventFilters,
    FollowOptions,
    JobFilters,
    RecordFilters,
    RunFilters,
    arguments_of_filters,
    as_of_argument,
)
from perstack_storage._core.follow import Commits, Follow, Start
from perstack_storage._core.shapes import (
    Checkpoint,
    Deletion,
    EventMeta,
    Job,
    JobSummary,
    NamedCursor,
    Record,
    RunEvent,
    RunSetting,
    RunSummary,
    Size,
)

from .connection import Connection
from .resumed import ResumedJob

if TYPE_CHECKING:
    from perstack_storage._core.stats import Stats


class Reads:
    """The reading half of `Client`."""

    timeout_s: float
    _seen: SeenEpochs

    def _connection(self) -> Connection:
        raise NotImplementedError

    def retrieve_job(self, job_id: str, *, as_of: AsOf | None = None) -> Job | None:
        """Returns a job, or None where it is unknown.

        With `as_of`, a position or a time, it is what the job was then; so are checkpoints and events. What
        was deleted since is not there.

        Raises:
            PositionGone: the position is after the end of the daemon's history.
            ProtocolError: the daemon is older, and has no `as_of`.
        """
        arguments = {"jobId": job_id, "asOf": as_of_argument(as_of)}
        return cast("Job | None", self._value("retrieveJob", **arguments))

    def get_all_jobs(self, limit: int | None = None, after: Any = None) -> Page[Job]:
        """Returns the jobs by `startedAt`, newest first, ties by id.

        Args:
            limit: number of items at most; all by default.
            after: the `next` of the page before.
        """
        return self._page("getAllJobs", limit=limit, after=after)

    def retrieve_checkpoint(
        self, job_id: str, checkpoint_id: str, *, as_of: AsOf | None = None
    ) -> Checkpoint:
        """Returns a checkpoint; `as_of` as in `retrieve_job`.

        Raises:
            CheckpointNotFound: there is none, or no such job.
        """
        arguments = {"jobId": job_id, "checkpointId": checkpoint_id, "asOf": as_of_argument(as_of)}
        return cast("Checkpoint", self._value("retrieveCheckpoint", **arguments))

    def get_checkpoints_by_job_id(
        self,
        job_id: str,
        limit: int | None = None,
        after: Any = None,
        **which: Unpack[CheckpointFilters],
    ) -> Page[Checkpoint]:
        """Returns the checkpoints of a job by `stepNumber`, ties in the order stored.

        Paged as `get_all_jobs`.

        Args:
            job_id: the job's id.
            limit: see `get_all_jobs`.
            after: see `get_all_jobs`.
            which: `omit`: fields left out of each checkpoint; `as_of` as in `retrieve_job`.
        """
        filters = arguments_of_filters(which, CheckpointFilters)
        return self._page("getCheckpointsByJobId", jobId=job_id, **filters, limit=limit, after=after)

    def get_events_by_run(
        self,
        job_id: str,
        run_id: str,
        limit: int | None = None,
        after: Any = None,
        *,
        as_of: AsOf | None = None,
    ) -> Page[EventMeta]:
        """Returns time, step and type of the events of a run by `stepNumber`, ties in the order stored.

        Paged as `get_all_jobs`; `as_of` as in `retrieve_job`.
        """
        arguments = {"jobId": job_id, "runId": run_id, "asOf": as_of_argument(as_of)}
        return self._page("getEventsByRun", **arguments, limit=limit, after=after)

    def get_event_contents(
        self,
        job_id: str,
        run_id: str,
        max_step: int | None = None,
        limit: int | None = None,
        after: Any = None,
        **which: Unpack[EventFilters],
    ) -> Page[RunEvent]:
        """Returns the events of a run by `timestamp`, ties in the order stored; paged as `get_all_jobs`.

        A page with the last 20 events: `limit=20, newest_first=True`. A timeline without the messages:
        `omit=["messages", "checkpoint.messages", "nextCheckpoint"]`.

        Args:
            job_id: the job's id.
            run_id: the run's id.
            max_step: only events whose `stepNumber` is not above this.
            limit: see `get_all_jobs`.
            after: see `get_all_jobs`.
            which: `min_step`, `types`, `newest_first`, `omit`, `as_of`, as `EventFilters` says.
        """
        arguments: dict[str, Any] = {"jobId": job_id, "runId": run_id, "maxStep": max_step}
        arguments |= arguments_of_filters(which, EventFilters)
        return self._page("getEventContents", **arguments, limit=limit, after=after)

    def get_all_runs(self, limit: int | None = None, after: Any = None) -> Page[RunSetting]:
        """Returns the settings of all runs by `updatedAt`, newest first; paged as `get_all_jobs`."""
        return self._page("getAllRuns", limit=limit, after=after)

    def resume(self, job_id: str, run_id: str | None = None) -> ResumedJob:
        """Returns the job with a fence: its stores raise JobTakenOver once another session has stored for it.

        Two programs that resume one job can't both go on with it: the one whose store comes first does, until
        the other resumes it again. What its thread, or its event loop, stores otherwise counts as its own.

        Args:
            job_id: the job; it need not be stored yet.
            run_id: with it, only stores for this run count.

        Raises:
            Refused: the id is none.
        """
        connection = self._connection()
        read = connection.call("retrieveJob", arguments_of({"jobId": job_id}))
        return ResumedJob(connection, read, job_id, run_id)

    def list_jobs(
        self, limit: int | None = None, after: Any = None, **which: Unpack[JobFilters]
    ) -> Page[JobSummary]:
        """Returns summaries of the jobs that any record names, those that began last first.

        Args:
            limit: number of items at most; 100 by default, and never more than 1,000.
            after: the `next` of the page before.
            which: `contains`, `status`, `expert_key`, `since`, `until` and others, as `JobFilters` says.
        """
        filters = arguments_of_filters(which, JobFilters)
        return self._page("listJobs", **filters, limit=limit, after=after)

    def list_runs(
        self, limit: int | None = None, after: Any = None, **which: Unpack[RunFilters]
    ) -> Page[RunSummary]:
        """Returns summaries of the runs that any record names, those that began last first.

        Args:
            limit: see `list_jobs`.
            after: see `list_jobs`.
            which: what `list_jobs` takes.
        """
        filters = arguments_of_filters(which, RunFilters)
        return self._page("listRuns", **filters, limit=limit, after=after)

    def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        epoch: str | None = None,
        **which: Unpack[RecordFilters],
    ) -> Page[Record]:
        """Returns records in the order stored, after the position `after`.

        `next` of the page is always the position to go on from. Without a filter an empty page is the end for
        now; with one it is where `next` is not below `position`.

        Args:
            after: a position; 0 for the beginning.
            limit: number of records at most; by default what the daemon gives at most.
            epoch: of the record at `after`, where it was kept; this client knows those that it has seen.
            which: `job_id`, `run_id`, `types`, `ops`, `omit`, `last`, as `RecordFilters` says.

        Raises:
            PositionGone: the daemon has lost what was read, or goes on from another copy of the base.
        """
        filters = arguments_of_filters(which, RecordFilters)
        start = None if "last" in filters else after
        arguments = {"after": start, "limit": limit, "epoch": epoch or self._seen.at(after), **filters}
        read = self._connection().call("readAll", arguments_of(arguments))
        return records_of(read, after, self._seen)

    def get_event(self, position: int) -> Record:
        """Returns the record at a position, of any kind, without its `epoch`.

        Raises:
            Refused: `NOT_FOUND`: nothing is there, it was lost, or it repeats an earlier event.
        """
        return cast("Record", self._value("getEvent", position=position))

    def position_at(self, time_ms: float) -> int:
        """Returns the last position that was stored at a time in ms since 1970 or before it; 0 if none was.

        The time is the daemon's, at which it wrote the record.
        """
        return int((self._value("positionAt", timeMs=time_ms))["position"])

    def deletions(self, after: int = 0, limit: int | None = None) -> Page[Deletion]:
        """Returns what was deleted, in the order of the deletions.

        Args:
            after: a position; 0 for the beginning.
            limit: number of items at most; 100 by default, and never more than 1,000.
        """
        return self._page("deletions", after=after, limit=limit)

    def size_of(self, job_id: str, run_id: str | None = None) -> Size:
        """Returns how much is stored of a job, or of one of its runs: what a deletion would remove."""
        return cast("Size", self._value("sizeOf", jobId=job_id, runId=run_id))

    def follow(self, after: int = 0, **which: Unpack[FollowOptions]) -> Iterator[Record]:
        """Returns an iterator over the records after a position, then over those stored from now on.

        Each record comes once, in the order stored, over restarts of the daemon too. The iterator ends when
        the client is closed, or as `idle_s` says. To go on later, keep `hello()["store"]`, and position and
        epoch of the last record; give all three. Or give a `name`, and the daemon keeps the position that was
        set with `commit`: then each record comes at least once, whatever is killed.

        Args:
            after: a position; 0 for the beginning.
            which: `job_id`, `run_id`, `types`, `ops`, `omit`, `last`, `idle_s`, `store`, `epoch`, `name` and
                `commit_every`, as `FollowOptions` says.

        Raises:
            PositionGone: the daemon has lost what was read, serves another history, or another continuation
                of this one, as of a copy of the base that was put back.
            ProtocolError: the daemon is older, and has no `types`, `ops`, `last` or `name`.
            ValueError: `run_id` without `job_id`, `last` beside `after`, `commit_every` without `name`, or
                a negative time.
        """
        filters = arguments_of_filters(which, FollowOptions)
        start = Start(after, *(filters.pop(name, None) for name in ("store", "epoch", "last", "name")))
        commit_every, idle_s = filters.pop("commit_every", None), filters.pop("idle_s", None)
        follow = Follow(start, filters, idle_s=idle_s, timeout_s=self.timeout_s, seen=self._seen)
        return self._follow(follow, Commits(follow, commit_every))

    def _follow(self, follow: Follow, commits: Commits) -> Iterator[Record]:
        begun = False
        while not follow.done:
            try:
                connection = self._connection()
                self._commit_due(commits, connection.now())
                read = connection.call(*follow.request(connection.now()))
            except ClosedError:
                if begun:
                    return
                raise
            begun = True
            for record in follow.take(read):
                self._commit_due(commits, connection.now())
                yield record
                commits.note_record(record)
            commits.note_all()
        self._commit_due(commits, connection.now())

    def _commit_due(self, commits: Commits, now: float) -> None:
        arguments = commits.due(now)
        if arguments is not None:
            self._value("setCursor", **arguments)

    def commit(self, record: Record) -> None:
        """Sets the cursor of a record that came from `follow` with a `name`: it and all before it are done.

        It waits until that is on disk, and before for what was stored through this client. Records of which
        none was committed come again to the next subscriber of that name.

        Raises:
            PositionGone: the record is not in the daemon's history (any more).
            Refused: `CURSOR_BACK`: the cursor stands further on.
            ValueError: the record came without a name.
        """
        name = record.get("cursor")
        if name is None:
            raise ValueError("the record does not come from `follow` with a name")
        self.set_cursor(name, record["position"], epoch=record.get("epoch"))

    def set_cursor(
        self,
        name: str,
        position: int,
        *,
        force: bool = False,
        store: str | None = None,
        epoch: str | None = None,
    ) -> None:
        """Sets a named cursor; there is one from then on. It waits until that is on disk.

        Args:
            name: at most 200 bytes, as an id.
            position: all up to it is done.
            force: it may go back.
            store: `hello()["store"]`: the history that `position` belongs to, where it was kept.
            epoch: of the record at `position`, where it was kept.

        Raises:
            PositionGone: the position is not in the daemon's history.
            Refused: `CURSOR_BACK`: it stands further on; `TOO_LARGE`: there are 1,000 cursors.
        """
        arguments = {"name": name, "position": position, "store": store, "epoch": epoch}
        self._value("setCursor", **arguments, force=force or None)

    def cursors(self, limit: int | None = None, after: str | None = None) -> Page[NamedCursor]:
        """Returns named cursors by name, at most 100 at a time.

        Args:
            limit: number of items at most.
            after: the `next` of the page before.
        """
        return self._page("cursors", limit=limit, after=after)

    def delete_cursor(self, name: str) -> None:
        """Deletes a named cursor; it may be gone already."""
        self._value("deleteCursor", name=name)

    def hello(self) -> dict[str, Any]:
        """Returns what the daemon says of itself: version, base, name of the history, limits."""
        return cast("dict[str, Any]", self._value("hello"))

    def stats(self) -> "Stats":
        """Returns the daemon's counters and gauges."""
        return cast("Stats", self._value("stats"))

    def ping(self) -> float:
        """Returns the time that a message takes to the daemon and back, in seconds."""
        start = time.perf_counter()
        self._value("ping")
        return time.perf_counter() - start

    def _value(self, op: str, **arguments: Any) -> Any:
        return value_of(as_asked(self._connection().call(op, arguments_of(arguments)), arguments))

    def _page(self, op: str, **arguments: Any) -> Page[Any]:
        return page_of(as_asked(self._connection().call(op, arguments_of(arguments)), arguments))
