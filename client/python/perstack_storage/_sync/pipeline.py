"""Stores that are sent without waiting for each other, in order and in batches."""

import math
from collections.abc import Mapping
from itertools import islice
from types import TracebackType
from typing import Any

from perstack_storage._core.batch import Batch, Outcome
from perstack_storage._core.errors import Refused, StorageError, refused
from perstack_storage._core.jsonio import dumps
from perstack_storage._sync.connection import Connection


class Pipeline:
    """Made by `Client.pipeline`; used within `with`, by the thread that made it.

        with client.pipeline() as pipeline:
            for event in events:
                pipeline.store_event(event)

    Each method takes the value as it is at the call and returns at once, unless so many stores are
    unanswered that the window is used up. What is queued is sent at the latest by a later call, `flush`, or
    leaving; only the last two promise that it is on disk. Leaving the block through an exception still
    stores what was queued; should that fail too, the exception gets a note.

    A call that an exception ended in its middle (Ctrl-C) may have queued its value, and has an entry in
    `positions` then.
    """

    def __init__(self, connection: Connection, max_in_flight: int | None) -> None:
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        self._connection = connection
        self._records_max = math.inf if max_in_flight is None else max_in_flight
        # By the number of the first store of a batch: what comes twice, after an interruption, counts once.
        self._told: dict[int, tuple[list[str], list[Outcome | None]]] = {}
        self._positions: list[int | None] = []
        self._refusals: list[Refused] = []
        self._flat = (0, 0, 0)  # so many batches are in the two lists, and make so many entries of each
        self._raised = 0  # so many of the refusals have been raised
        self._refused = False
        self._unheard: StorageError | None = None

    @property
    def positions(self) -> list[int | None]:
        """The position of each store, in the order of the calls; None for one that was refused or given up.

        Complete after `flush` and after leaving.
        """
        self._flatten()
        return self._positions

    @property
    def refusals(self) -> list[Refused]:
        """A `Refused` for each store that was refused, with its `index`."""
        self._flatten()
        return self._refusals

    def settled(self, batch: Batch) -> None:
        """Takes the outcomes of a batch; called by the connection, in the order of the stores."""
        self._take(batch, list(batch.outcomes))

    def abandoned(self, batch: Batch) -> None:
        """Notes that a batch was given up; called by the connection."""
        self._take(batch, [*batch.outcomes, *[None] * (len(batch.stores) - len(batch.outcomes))])

    def unheard(self, error: StorageError) -> None:
        """Keeps an error for `flush`; called by the connection."""
        self._unheard = error

    def store_job(self, job: Mapping[str, Any]) -> None:
        """Queues a job; see `Client.store_job`."""
        self._connection.submit("storeJob", dumps(job), self, self._records_max)

    def store_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Queues a checkpoint; see `Client.store_checkpoint`."""
        self._connection.submit("storeCheckpoint", dumps(checkpoint), self, self._records_max)

    def store_event(self, event: Mapping[str, Any]) -> None:
        """Queues an event; see `Client.store_event`."""
        self._connection.submit("storeEvent", dumps(event), self, self._records_max)

    def store_run_setting(self, setting: Mapping[str, Any]) -> None:
        """Queues a run setting; see `Client.store_run_setting`."""
        self._connection.submit("storeRunSetting", dumps(setting), self, self._records_max)

    def flush(self) -> None:
        """Waits until everything queued so far is on disk or refused.

        Raises:
            Refused: the first refusal that was not raised before; each later item was stored all the same.
            OutcomeUnknown, DaemonUnavailable: no store was answered for `timeout_s`; all that was
                unanswered is given up.
        """
        self._connection.flush()
        unheard, self._unheard = self._unheard, None
        if unheard is not None:
            raise unheard
        if self._refused and self._raised < len(self.refusals):
            first = self.refusals[self._raised]
            self._raised = len(self.refusals)
            raise first

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except StorageError as problem:
            if error is None:
                raise
            error.add_note(f"and the pipeline, while it stored what was queued: {problem}")

    def _take(self, batch: Batch, outcomes: list[Outcome | None]) -> None:
        refused = dict in set(map(type, outcomes))
        if refused:
            self._refused = True
        self._told.setdefault(batch.start, (batch.ops if refused else [], outcomes))

    def _flatten(self) -> None:
        """Brings the two lists up to date; each step may be the last one, or be done once more."""
        batches, stores, refusals = self._flat
        del self._positions[stores:], self._refusals[refusals:]
        positions: list[int | None] = []
        refused_now: list[Refused] = []
        told = list(islice(self._told.values(), batches, None))
        for ops, outcomes in told:
            for number, outcome in enumerate(outcomes):
                if isinstance(outcome, dict):
                    refused_now.append(refused(outcome, op=ops[number], index=stores + len(positions)))
                positions.append(outcome if isinstance(outcome, int) else None)
        self._positions += positions
        self._refusals += refused_now
        batches, stores, refusals = batches + len(told), stores + len(positions), refusals + len(refused_now)
        self._flat = batches, stores, refusals
        del self._positions[stores:], self._refusals[refusals:]
