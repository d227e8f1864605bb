"""The synchronous client: the calls of Perstack's storage, answered by the daemon."""

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from perstack_storage._connection import Connection
from perstack_storage._endpoint import ENDPOINT_VARIABLE, resolve_base, resolve_endpoint
from perstack_storage._errors import CheckpointNotFound, ErrorCode, Refused
from perstack_storage._jsonio import dumps, loads
from perstack_storage._pipeline import Pipeline
from perstack_storage._process import ProcessState
from perstack_storage._reads import Read
from perstack_storage._shapes import Checkpoint, EventMeta, Job, Record, RunEvent, RunSetting

TIMEOUT_DEFAULT_S = 30.0

T = TypeVar("T")


class Page(list[T], Generic[T]):
    """A listing, or a piece of it.

    Attributes:
        next: what to give as `after` to go on behind this piece; None where the listing is complete.
        position: every record up to this position was seen.
    """

    def __init__(self, items: list[T], next: Any, position: int | None) -> None:  # noqa: A002
        super().__init__(items)
        self.next = next
        self.position = position


class Client:
    """Stores and reads jobs, checkpoints, events and run settings.

    It connects when first used, rides out a restart of the daemon within `timeout_s`, and may be shared by
    threads (each has a connection, and an order of stores, of its own) and used on after a fork.

    Values are any mappings with the fields of section 6 of `proto/wire.md`; they are taken as they are at
    the call. NaN and infinities become null, as in JSON.stringify. Values come back equal, with all their
    fields.

    Every call may raise `DaemonUnavailable`, `Refused` and `ClosedError`; a store also `OutcomeUnknown`,
    and TypeError or ValueError for what has no form in JSON. All but those two are `StorageError`s.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        base_path: str | os.PathLike[str] | None = None,
        timeout_s: float = TIMEOUT_DEFAULT_S,
    ) -> None:
        """Prepares a client; nothing is connected yet.

        Args:
            endpoint: the daemon's; else PERSTACK_STORED_ENDPOINT, else the socket of the base.
            base_path: the base; else PERSTACK_STORED_BASE, else ./perstack.
            timeout_s: how long a call, or a pipeline without any answer, waits before it gives up.

        Raises:
            EndpointError: no endpoint can be derived from the base.
            ValueError: `timeout_s` is not positive.
        """
        if not timeout_s > 0:
            raise ValueError("timeout_s must be positive")
        self.endpoint = resolve_endpoint(endpoint, base_path)
        self.timeout_s = timeout_s
        derived = not (endpoint or os.environ.get(ENDPOINT_VARIABLE))
        self._base = resolve_base(base_path) if derived else None
        self._state = ProcessState(self.endpoint, self._base, timeout_s)
        self._states = {self._state.pid: self._state}

    def store_job(self, job: Job | Mapping[str, Any]) -> int:
        """Stores a job; of one id the last one counts. Returns its position."""
        return self._store("storeJob", job)

    def store_checkpoint(self, checkpoint: Checkpoint | Mapping[str, Any]) -> int:
        """Stores a checkpoint; of one id the last one counts. Returns its position."""
        return self._store("storeCheckpoint", checkpoint)

    def store_event(self, event: RunEvent | Mapping[str, Any]) -> int:
        """Stores an event; the same one again, byte for byte, is kept once. Returns its position."""
        return self._store("storeEvent", event)

    def store_run_setting(self, setting: RunSetting | Mapping[str, Any]) -> int:
        """Stores the setting of a run; where there is one, only `updatedAt` changes. Returns its position."""
        return self._store("storeRunSetting", setting)

    def pipeline(self, max_in_flight: int | None = None) -> Pipeline:
        """Returns a context manager whose stores don't wait for each other.

        Args:
            max_in_flight: number of its stores that may be unanswered; by default what the daemon grants.
        """
        return Pipeline(self._connection(), max_in_flight)

    def retrieve_job(self, job_id: str) -> Job | None:
        """Returns a job, or None where it is unknown."""
        return cast("Job | None", self._value("retrieveJob", jobId=job_id))

    def get_all_jobs(self, limit: int | None = None, after: Any = None) -> Page[Job]:
        """Returns the jobs by `startedAt`, newest first, ties by id.

        Args:
            limit: number of items at most; all by default.
            after: the `next` of the page before.
        """
        return self._page("getAllJobs", limit=limit, after=after)

    def retrieve_checkpoint(self, job_id: str, checkpoint_id: str) -> Checkpoint:
        """Returns a checkpoint.

        Raises:
            CheckpointNotFound: there is none, or no such job.
        """
        arguments = {"jobId": job_id, "checkpointId": checkpoint_id}
        return cast("Checkpoint", self._value("retrieveCheckpoint", **arguments))

    def get_checkpoints_by_job_id(
        self, job_id: str, limit: int | None = None, after: Any = None
    ) -> Page[Checkpoint]:
        """Returns the checkpoints of a job by `stepNumber`, ties in the order stored.

        Paged as `get_all_jobs`.
        """
        return self._page("getCheckpointsByJobId", jobId=job_id, limit=limit, after=after)

    def get_events_by_run(
        self, job_id: str, run_id: str, limit: int | None = None, after: Any = None
    ) -> Page[EventMeta]:
        """Returns time, step and type of the events of a run by `stepNumber`, ties in the order stored.

        Paged as `get_all_jobs`.
        """
        return self._page("getEventsByRun", jobId=job_id, runId=run_id, limit=limit, after=after)

    def get_event_contents(
        self,
        job_id: str,
        run_id: str,
        max_step: int | None = None,
        limit: int | None = None,
        after: Any = None,
    ) -> Page[RunEvent]:
        """Returns the events of a run by `timestamp`, ties in the order stored; paged as `get_all_jobs`.

        Args:
            job_id: the job's id.
            run_id: the run's id.
            max_step: only events whose `stepNumber` is not above this.
            limit: see `get_all_jobs`.
            after: see `get_all_jobs`.
        """
        arguments = {"jobId": job_id, "runId": run_id, "maxStep": max_step}
        return self._page("getEventContents", **arguments, limit=limit, after=after)

    def get_all_runs(self, limit: int | None = None, after: Any = None) -> Page[RunSetting]:
        """Returns the settings of all runs by `updatedAt`, newest first; paged as `get_all_jobs`."""
        return self._page("getAllRuns", limit=limit, after=after)

    def read_all(self, after: int = 0, limit: int | None = None) -> Page[Record]:
        """Returns records of all jobs in the order stored, behind the position `after`.

        `next` of the page is always the position to go on from; an empty page is the end for now.

        Args:
            after: a position; 0 for the beginning.
            limit: number of records at most; by default what the daemon gives at most.
        """
        return self._page("readAll", after=after, limit=limit)

    def hello(self) -> dict[str, Any]:
        """Returns what the daemon says of itself: version, base, name of the history, limits."""
        return cast("dict[str, Any]", self._value("hello"))

    def stats(self) -> dict[str, Any]:
        """Returns the daemon's counters and gauges."""
        return cast("dict[str, Any]", self._value("stats"))

    def ping(self) -> float:
        """Returns the time that a message takes to the daemon and back, in seconds."""
        start = time.perf_counter()
        self._value("ping")
        return time.perf_counter() - start

    def close(self) -> None:
        """Closes all connections.

        Calls under way in other threads end with ClosedError, and so does every later one.
        """
        self._state_here().close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _state_here(self) -> ProcessState:
        state = self._state
        if state.pid != os.getpid():
            # The parent's state stays in the dictionary: not even its destructors may touch its sockets here.
            state = ProcessState(self.endpoint, self._base, self.timeout_s)
            state = self._state = self._states.setdefault(state.pid, state)
        return state

    def _connection(self) -> Connection:
        return self._state_here().connection()

    def _store(self, op: str, value: Mapping[str, Any]) -> int:
        return self._connection().store(op, dumps(value))

    def _read(self, op: str, arguments: dict[str, Any]) -> Read:
        given = {name: value for name, value in arguments.items() if value is not None}
        read = self._connection().call(op, dumps(given))
        if read.error is not None:
            missing = op == "retrieveCheckpoint" and read.error.get("code") == ErrorCode.NOT_FOUND
            raise (CheckpointNotFound if missing else Refused)(read.error, op=op)
        return read

    def _value(self, op: str, **arguments: Any) -> Any:
        return loads(self._read(op, arguments).body)

    def _page(self, op: str, **arguments: Any) -> Page[Any]:
        read = self._read(op, arguments)
        return Page(loads(read.body), read.next, read.position)
