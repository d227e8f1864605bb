"""What the daemon says of itself: the answers to `hello` and `stats`. Nothing here changes anything."""

import time
from collections import Counter
from typing import Any

from perstack_storage import __version__
from perstack_stored.config.settings import Settings
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.observe.counters import LoopCounters
from perstack_stored.projection.process import ProjectionProcess
from perstack_stored.protocol import frames as wire
from perstack_stored.protocol.frames import RequestHeader
from perstack_stored.protocol.limits import READ_ALL_RECORDS_MAX
from perstack_stored.protocol.multipart import MultipartAssembler
from perstack_stored.read.executor import ReadExecutor
from perstack_stored.store.commit import Committer
from perstack_stored.transport.endpoints import Endpoints


class StatusReporter:
    """Looks at the parts of a server, in its thread."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it looks at
        self,
        settings: Settings,
        base: str,
        journal: JournalWriter,
        sessions: Sessions,
        stores: Committer,
        parts: MultipartAssembler,
        reads: ReadExecutor,
        doors: Endpoints,
        followers: tuple[ProjectionProcess, ProjectionProcess],
    ) -> None:
        self._settings = settings
        self._base = base
        self._journal = journal
        self._sessions = sessions
        self._stores = stores
        self._parts = parts
        self._reads = reads
        self._doors = doors
        self._index, self._tree = followers
        self._started = time.monotonic()
        self._line_at = self._started, journal.mark.position

    def hello(self, header: RequestHeader, access: str) -> dict[str, Any]:
        """The body of the answer to `hello`, wire.md section 4.5."""
        settings = self._settings
        epoch = self._journal.epochs.at(self._journal.mark.position)
        hello: dict[str, Any] = {
            "server": "perstack-stored",
            "version": __version__,
            "versions": [wire.PROTOCOL_VERSION],
            "base": self._base,
            "store": self._journal.store.hex(),
            **({} if epoch is None else {"epoch": epoch}),
            "access": access,
            "window": {"records": settings.window_records, "bytes": settings.window_bytes},
            "limits": {
                "frameBytes": settings.frame_bytes_max,
                "valueBytes": settings.value_bytes_max,
                "answerBytes": settings.answer_bytes,
                "batchItems": settings.batch_items_max,
                "headerBytes": wire.HEADER_BYTES_MAX,
                "readAllRecords": READ_ALL_RECORDS_MAX,
                "sessionSeconds": settings.session_seconds,
                "partsSeconds": settings.parts_seconds,
                "readSeconds": settings.read_seconds,
            },
        }
        key = wire.session_key(header)
        if key is not None:
            hello["session"] = {"last": self._sessions.last_of(key)}
        return hello

    def stats(self, loop: LoopCounters) -> dict[str, Any]:
        """Counters since the start, and gauges; the names are described in daemon/README.md."""
        mark = self._journal.mark
        stores, reads = self._stores, self._reads
        return {
            "uptimeSeconds": round(time.monotonic() - self._started, 3),
            "position": mark.position,
            "journal": {
                "segment": mark.segment,
                "offset": mark.offset,
                "syncs": self._journal.syncs,
                "syncSeconds": round(loop.syncs.total, 6),
                "slowSyncs": loop.slow_syncs,
            },
            "messages": loop.messages,
            "stored": {wire.STORE_OPS[kind]: stores.stored.get(kind, 0) for kind in wire.STORE_OPS},
            "repeated": stores.repeated,
            "refused": self.refused(),
            "held": {"requests": loop.held_requests, "bytes": loop.held_bytes},
            "partsBytes": self._parts.bytes,
            "reads": {
                "waiting": loop.reads_waiting,
                "pending": reads.pending,
                "following": len(reads.tail),
                "failed": reads.failed,
            },
            "outbox": self._doors.answers(),
            "connections": self._doors.connections(),
            "sessions": len(self._sessions),
            "index": {**self.follower(self._index), "rebuilds": self._index.rebuilds},
            "tree": {**self.follower(self._tree), "blocked": self._tree.blocked},
        }

    def refused(self) -> dict[str, int]:
        """Errors by code, of stores, of items of batches, and of reads. May be called in another thread."""
        counts = Counter({str(code): count for code, count in self._stores.refused.copy().items()})
        return dict(counts + self._reads.refused())

    def line(self) -> str:
        """The most important figures in a line for people; rates are since the last line."""
        now, position = time.monotonic(), self._journal.mark.position
        before, from_position = self._line_at
        self._line_at = now, position
        rate = (position - from_position) / max(now - before, 1e-3)
        behind = ", ".join(f"{item.kind} {self._behind(item)}" for item in (self._index, self._tree))
        refused = sum(self.refused().values())
        return (
            f"position {position}; {rate:.0f} records/s; {len(self._sessions)} sessions;"
            f" {refused} refused; behind: {behind}"
        )

    def _behind(self, follower: ProjectionProcess) -> str:
        if follower.fault:
            return f"stopped by: {follower.fault}"
        return (
            "starting"
            if follower.place is None
            else str(self._journal.mark.position - follower.place.position)
        )

    def follower(self, follower: ProjectionProcess) -> dict[str, Any]:
        """How far a follower is."""
        mark, place = self._journal.mark, follower.place
        return {
            "position": None if place is None else place.position,
            "lagRecords": None if place is None else mark.position - place.position,
            "lagBytes": None if place is None else self._journal.bytes_between(place),
            "fault": follower.fault,
            "faults": follower.faults,
            "starts": follower.starts,
        }
