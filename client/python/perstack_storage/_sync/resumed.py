"""A job that a program goes on with, by the synchronous client."""

from types import TracebackType
from typing import TYPE_CHECKING

from perstack_storage._core.calls import NowaitStores, Stores
from perstack_storage._core.errors import noting
from perstack_storage._core.jsonio import dumps
from perstack_storage._core.reads import Read
from perstack_storage._core.resumed import Resumed
from perstack_storage._sync.atomic import AtomicBatch
from perstack_storage._sync.connection import Connection
from perstack_storage._sync.future import StoreFuture
from perstack_storage._sync.pipeline import Pipeline

if TYPE_CHECKING:
    from perstack_storage._core.inputs import J
    from perstack_storage._core.shapes import EventFields, RunEvent


class ResumedJob(Resumed, Stores[int], NowaitStores[StoreFuture]):
    """Made by `Client.resume`; its stores raise JobTakenOver once another session has stored for the job.

        with client.resume("job-1") as job:
            job.store_event(event)

    It belongs to the thread that made it, whose other stores count as its own. Leaving the block waits for
    the thread's stores that nobody waited for.
    """

    def __init__(self, connection: Connection, read: Read, job_id: str, run_id: str | None) -> None:
        super().__init__(read, job_id, run_id)
        self._connection = connection

    def pipeline(self, max_in_flight: int | None = None) -> Pipeline:
        """Returns a context manager whose stores don't wait for each other; see `Client.pipeline`."""
        return _FencedPipeline(self._connection, max_in_flight, self)

    def atomic(self) -> AtomicBatch:
        """Returns a context manager whose stores are stored together when it is left: all or none."""
        return AtomicBatch(self._connection.store, self._fence)

    def __enter__(self) -> "ResumedJob":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with noting(error, "the job, while it stored what was outstanding"):
            self._connection.flush()

    def _store(self, op: str, body: bytes) -> int:
        return self._connection.store(op, self._fenced(body))

    def _store_nowait(self, op: str, body: bytes) -> StoreFuture:
        return self._connection.submit_nowait(op, self._fenced(body))


class _FencedPipeline(Pipeline):
    """A pipeline of a resumed job."""

    def __init__(self, connection: Connection, max_in_flight: int | None, job: Resumed) -> None:
        super().__init__(connection, max_in_flight)
        self._job = job

    def store_event(self, event: "RunEvent | EventFields | J") -> None:
        """Queues an event."""
        self._store("storeEvent", dumps(event))

    def _store(self, op: str, body: bytes) -> None:
        super()._store(op, self._job._fenced(body))
