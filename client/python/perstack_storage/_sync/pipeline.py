"""Stores that are sent without waiting for each other, in order and in batches."""

import math
from types import TracebackType
from typing import TYPE_CHECKING

from perstack_storage._core.calls import Stores
from perstack_storage._core.errors import noting
from perstack_storage._core.jsonio import dumps
from perstack_storage._core.outcomes import PipelineOutcomes
from perstack_storage._sync.connection import Connection

if TYPE_CHECKING:
    from perstack_storage._core.inputs import J
    from perstack_storage._core.shapes import EventFields, RunEvent


class Pipeline(PipelineOutcomes, Stores[None]):
    """Made by `Client.pipeline`; used within `with`, by the thread that made it.

        with client.pipeline() as pipeline:
            for event in events:
                pipeline.store_event(event)

    Each method takes the value as it is at the call and returns at once, unless unanswered stores
    use up the window. What is queued is sent at the latest by a later call, `flush`, or
    leaving; only the last two promise that it is on disk. Leaving the block through an exception still
    stores what was queued; should that fail too, the exception gets a note.

    A call that an exception ended in its middle (Ctrl-C) may have queued its value, and has an entry in
    `positions` then.
    """

    def __init__(self, connection: Connection, max_in_flight: int | None) -> None:
        super().__init__(max_in_flight)
        self._connection = connection
        self._records_max = math.inf if max_in_flight is None else max_in_flight

    def store_event(self, event: "RunEvent | EventFields | J") -> None:
        """Queues an event. Not by `_store`: a call more is 2 % of what an event costs."""
        self._connection.submit("storeEvent", dumps(event), self, self._records_max)

    def flush(self) -> None:
        """Waits until everything queued so far is on disk or refused.

        Raises:
            Refused: the first refusal that was not raised before; each later item was stored all the same.
            OutcomeUnknown, DaemonUnavailable: no store was answered for `timeout_s`; all that was
                unanswered is given up.
        """
        self._connection.flush()
        self._raise_first()

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with noting(error, "the pipeline, while it stored what was queued"):
            self.flush()

    def _store(self, op: str, body: bytes) -> None:
        self._connection.submit(op, body, self, self._records_max)
