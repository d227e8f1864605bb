"""A job that a program goes on with: its stores expect that nobody else stores for it. No I/O."""

from typing import Any

from perstack_storage._core.answers import value_of
from perstack_storage._core.conditions import Conditional, Fence
from perstack_storage._core.errors import ProtocolError
from perstack_storage._core.reads import Read


class Resumed:
    """What was read of the job, and the fence of its stores.

    Attributes:
        job: the job as it was read; None where none is stored under the id.
        job_id: its id.
        run_id: with it, only stores for this run count.
    """

    def __init__(self, read: Read, job_id: str, run_id: str | None) -> None:
        self.job: Any = value_of(read)
        if read.position is None:
            raise ProtocolError("an answer to retrieveJob without a position")
        self.job_id, self.run_id = job_id, run_id
        self._fence = Fence(job_id, run_id, read.position)

    @property
    def position(self) -> int:
        """After this position nobody else has stored for it, as far as was heard."""
        return self._fence.position

    def _fenced(self, body: bytes) -> Conditional:
        return Conditional(body, self._fence)
