"""Stores that are sent without waiting for each other, in order and in batches."""

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from perstack_storage._connection import Connection
from perstack_storage._errors import StorageError
from perstack_storage._jsonio import dumps
from perstack_storage._outcomes import PipelineOutcomes


class Pipeline(PipelineOutcomes):
    """Made by `Client.pipeline`; used within `with`, by the thread that made it.

        with client.pipeline() as pipeline:
            for event in events:
                pipeline.store_event(event)

    Each method takes the value as it is at the call and returns at once, unless so many stores are
    unanswered that the window is used up. What is queued is sent at the latest by a later call, `flush`, or
    leaving; only the last two promise that it is on disk. Leaving the block through an exception still
    stores what was queued; should that fail too, the exception gets a note.
    """

    def __init__(self, connection: Connection, max_in_flight: int | None) -> None:
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        super().__init__()
        self._connection = connection
        self._records_max = math.inf if max_in_flight is None else max_in_flight

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
        self._raise_first()

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
