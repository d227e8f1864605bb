"""The synchronous client: its life, and how it stores. What it reads is in `reads.py`."""

import os
from types import TracebackType

from perstack_storage._core.calls import NowaitStores, Stores
from perstack_storage._core.deletions import Deletions
from perstack_storage._core.errors import noting
from perstack_storage._sync.atomic import AtomicBatch
from perstack_storage._sync.connection import Connection
from perstack_storage._sync.future import StoreFuture
from perstack_storage._sync.pipeline import Pipeline
from perstack_storage._sync.process import ProcessState
from perstack_storage._sync.reads import Reads
from perstack_storage._wire.client import ClientBase


class Client(ClientBase, Reads, Stores[int], Deletions[int], NowaitStores[StoreFuture]):
    """Stores and reads jobs, checkpoints, events and run settings.

    It connects when first used, rides out a restart of the daemon within `timeout_s`, and may be shared by
    threads (each has a connection, and an order of stores, of its own) and used on after a fork. A read sees
    what its thread stored before it, waited for or not.

    Values are any mappings with the fields of section 6 of `proto/wire.md`; they are taken as they are at
    the call. NaN and infinities become null, as in JSON.stringify. Values come back equal, with all their
    fields.

    Every call may raise `DaemonUnavailable`, `Refused` and `ClosedError`; a store also `OutcomeUnknown`,
    and TypeError or ValueError for what has no form in JSON. All but those two are `StorageError`s.

    An exception that a signal handler raises in the middle of a call (Ctrl-C, a timeout) leaves the outcome
    of that call unknown, and nothing else. A handler may itself call the client that it interrupted: a
    `…_nowait` store is queued, any other call is served before the interrupted one goes on. Time for which
    the process stands still (stopped, suspended, in a debugger) does not count for `timeout_s`.
    """

    def _prepare(self) -> None:
        self._state = self._new_state()
        self._states = {self._state.pid: self._state}

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until every `…_nowait` store so far, of all threads, is on disk or has failed.

        Args:
            timeout_s: how long to wait; by default until the client's own `timeout_s` has given them up.

        Raises:
            NotFlushed: `timeout_s` was too short; nothing is given up.
            StorageError: the first failure since the last flush, if the client has no `on_error`.
        """
        self._state_here().flush(timeout_s)

    def pipeline(self, max_in_flight: int | None = None) -> Pipeline:
        """Returns a context manager whose stores don't wait for each other.

        Args:
            max_in_flight: number of its stores that may be unanswered; by default what the daemon grants.
        """
        return Pipeline(self._connection(), max_in_flight)

    def atomic(self) -> AtomicBatch:
        """Returns a context manager whose stores are stored together when it is left: all or none."""
        return AtomicBatch(self._store)

    def close(self) -> None:
        """Closes all connections, without a flush.

        Calls under way in other threads end with ClosedError, and so does every later one.
        """
        self._state_here().close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with noting(error, "the client, while it stored what was outstanding"):
                self.flush()
        finally:
            self.close()

    def _new_state(self) -> ProcessState:
        return ProcessState(self._target, self._nowait.renewed())

    def _state_here(self) -> ProcessState:
        state = self._state
        if state.pid != os.getpid():
            # The parent's state stays in the dictionary: not even its destructors may touch its sockets here.
            state = self._new_state()
            state = self._state = self._states.setdefault(state.pid, state)
        return state

    def _connection(self) -> Connection:
        state = self._state
        if state.pid != os.getpid():
            state = self._state_here()
        return state.connection()

    def _store(self, op: str, body: bytes) -> int:
        return self._connection().store(op, body)

    def _store_nowait(self, op: str, body: bytes) -> StoreFuture:
        return self._connection().submit_nowait(op, body)
