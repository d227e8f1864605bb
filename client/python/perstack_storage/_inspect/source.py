"""What the gateway reads from the daemon: bodies as they came, so that numbers and texts stay as stored."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from perstack_storage import AsyncClient
from perstack_storage._core.answers import arguments_of, as_asked, page_of, records_of, value_of
from perstack_storage._core.errors import AnswerTooLarge, Refused
from perstack_storage._core.jsonio import dumps, loads
from perstack_storage._core.masking import masked_record
from perstack_storage._core.reads import Read
from perstack_storage._inspect import limits, slim

SUMMARIES_MAX = 1000
_AT_ONCE_MS = 1
"""A read that may wait is answered with a bounded piece of the history."""


class Listing(NamedTuple):
    """A page: the bytes of a JSON array, the cursor after it, the position that it is of."""

    items: bytes
    next: Any
    position: int | None


class Records(NamedTuple):
    """Slim records as bytes, the position to go on from, and whether that is the end for now."""

    items: list[bytes]
    next: int
    at_end: bool


class Wanted(NamedTuple):
    """Which records: of a job, of a run of it, events of some types, what some operations stored."""

    job: str | None = None
    run: str | None = None
    types: list[str] | None = None
    ops: list[str] | None = None


ALL = Wanted()


class Source:
    """Reads of an `AsyncClient`, each bounded in size."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._reading = asyncio.Semaphore(limits.RECORD_READS_MAX)

    async def read(
        self,
        op: str,
        arguments: dict[str, Any],
        wait_s: float = 0.0,
        bytes_max: int = limits.ANSWER_BYTES_MAX,
    ) -> Read:
        """One answer, checked for an error.

        Raises:
            StorageError: as the client's calls; AnswerTooLarge beyond the gateway's bound.
        """
        connection = self.client._connection()
        return as_asked(await connection.call(op, arguments_of(arguments), wait_s, bytes_max), arguments)

    async def listing(self, op: str, arguments: dict[str, Any]) -> Listing:
        """A page whose items nobody has to look into."""
        read = await self.read(op, arguments)
        if read.failure is not None or read.error is not None:
            page_of(read)  # raises
        return Listing(read.body, read.next, read.position)

    async def page(self, op: str, arguments: dict[str, Any]) -> Any:
        """A page with its items."""
        return page_of(await self.read(op, arguments))

    async def value(self, op: str, arguments: dict[str, Any]) -> bytes:
        """A value as it was stored."""
        read = await self.read(op, arguments)
        if read.failure is not None or read.error is not None:
            value_of(read)  # raises
        return read.body

    async def record(self, position: int) -> bytes:
        """The whole record at a position; secrets of a run setting are masked."""
        body = await self.value("getEvent", {"position": position})
        if b'RunSetting"' not in body[:200]:
            return body
        record = loads(body)
        return dumps({**record, "value": masked_record(record["op"], record["value"])})

    async def records(
        self,
        after: int,
        limit: int,
        wanted: Wanted = ALL,
        *,
        form: Callable[[Any], bytes] = slim.record,
    ) -> Records:
        """Records after a position, of a bounded piece of the history: an empty page need not be the end."""
        arguments = {
            "after": after, "limit": limit, "jobId": wanted.job, "runId": wanted.run,
            "types": wanted.types, "ops": wanted.ops,
            # `form` leaves them out too: an older daemon sends them.
            "omit": slim.omitted(wanted.types) if form is slim.record else None,
        }  # fmt: skip
        async with self._reading:
            read = await self._read_all(arguments)
            page = records_of(read, after, self.client._seen)
            at_end = page.position is None or page.next >= page.position
            return Records([form(record) for record in page], page.next, at_end)

    async def _read_all(self, arguments: dict[str, Any]) -> Read:
        read = await self.read("readAll", arguments, 0.0, limits.RECORDS_BYTES_MAX)
        if not isinstance(read.failure, AnswerTooLarge):
            return read
        arguments = {**arguments, "waitMs": _AT_ONCE_MS}
        return await self.read("readAll", arguments, _AT_ONCE_MS / 1000, limits.RECORDS_BYTES_MAX)

    async def pages(self, op: str, arguments: dict[str, Any], limit: int) -> AsyncIterator[Any]:
        """All items of a listing."""
        after = None
        while True:
            page = await self.page(op, {**arguments, "limit": limit, "after": after})
            for item in page:
                yield item
            after = page.next
            if after is None:
                return

    async def runs(self, job: str) -> list[Any]:
        """The summaries of the runs of a job, in the order in which they began."""
        arguments = {"jobId": job, "newestFirst": False}
        return [run async for run in self.pages("listRuns", arguments, SUMMARIES_MAX)]

    async def checkpoint(self, job: str, checkpoint: str, as_of: int | None = None) -> Any:
        """A checkpoint, decoded, as it was at a position."""
        arguments = {"jobId": job, "checkpointId": checkpoint, "asOf": as_of}
        return value_of(await self.read("retrieveCheckpoint", arguments))

    async def job(self, job: str, as_of: int | None = None) -> bytes:
        """A job as it was stored.

        Raises:
            Refused: NOT_FOUND: nothing of it is stored.
        """
        body = await self.value("retrieveJob", {"jobId": job, "asOf": as_of})
        if body == b"null" and not await self.page("listRuns", {"jobId": job, "limit": 1}):
            raise Refused({"code": "NOT_FOUND", "message": "there is no such job", "field": "jobId"})
        return body
