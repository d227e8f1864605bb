"""The names of the four stores, once for both clients and both pipelines."""

from typing import TYPE_CHECKING, Generic, TypeVar

from perstack_storage._core.jsonio import dumps

if TYPE_CHECKING:
    from perstack_storage._core.inputs import J
    from perstack_storage._core.shapes import (
        Checkpoint,
        CheckpointFields,
        EventFields,
        Job,
        JobFields,
        RunEvent,
        RunSetting,
    )

R = TypeVar("R")
F = TypeVar("F")


class Stores(Generic[R]):
    """Stores of a client, which return the position, or of a pipeline, which queue the value."""

    def store_job(self, job: "Job | JobFields | J") -> R:
        """Stores a job; of one id the last one counts."""
        return self._store("storeJob", dumps(job))

    def store_checkpoint(self, checkpoint: "Checkpoint | CheckpointFields | J") -> R:
        """Stores a checkpoint; of one id the last one counts."""
        return self._store("storeCheckpoint", dumps(checkpoint))

    def store_event(self, event: "RunEvent | EventFields | J") -> R:
        """Stores an event; the same one again, byte for byte, is kept once."""
        return self._store("storeEvent", dumps(event))

    def store_run_setting(self, setting: "RunSetting | J") -> R:
        """Stores the setting of a run; where there is one, only `updatedAt` changes."""
        return self._store("storeRunSetting", dumps(setting))

    def _store(self, op: str, body: bytes) -> R:
        raise NotImplementedError


class NowaitStores(Generic[F]):
    """Stores of a client that return a future of the position at once.

    A store is on disk when its future is done, and in its place in the order of the calls: those of a thread,
    or of an event loop. A process that is killed loses those whose futures are not done; so does one that
    ends without `flush` and without leaving the client's `with`. The synchronous client blocks, and may
    raise, only if `max_outstanding` is used up; the asyncio client raises TooMuchOutstanding then.
    Cancelling a future takes nothing back. A read of the same thread or event loop waits for what was stored
    before it, and sees that.
    """

    def store_job_nowait(self, job: "Job | JobFields | J") -> F:
        """Stores a job without waiting; see the class."""
        return self._store_nowait("storeJob", dumps(job))

    def store_checkpoint_nowait(self, checkpoint: "Checkpoint | CheckpointFields | J") -> F:
        """Stores a checkpoint without waiting; see the class."""
        return self._store_nowait("storeCheckpoint", dumps(checkpoint))

    def store_event_nowait(self, event: "RunEvent | EventFields | J") -> F:
        """Stores an event without waiting; see the class."""
        return self._store_nowait("storeEvent", dumps(event))

    def store_run_setting_nowait(self, setting: "RunSetting | J") -> F:
        """Stores the setting of a run without waiting; see the class."""
        return self._store_nowait("storeRunSetting", dumps(setting))

    def _store_nowait(self, op: str, body: bytes) -> F:
        raise NotImplementedError
