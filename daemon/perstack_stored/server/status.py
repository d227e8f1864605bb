"""Reports the daemon's state: the answers to `hello` and `stats`. It changes nothing."""

import time
from collections import Counter
from typing import Any

from perstack_stored import __version__
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames
from perstack_stored.protocol.frames import RequestHeader
from perstack_stored.protocol.limits import CURSORS_SHOWN_MAX, FEATURES, READ_ALL_RECORDS_MAX
from perstack_stored.protocol.multipart import MultipartAssembler
from perstack_stored.read.waiting import ReadsAwaitingIndex
from perstack_stored.store.group_commit import GroupCommit

from .parts import Mirror, Projection, ServerParts


class StatusReporter:
    """Reads counters and gauges from the parts of a server."""

    def __init__(
        self,
        parts: ServerParts,
        multipart: MultipartAssembler,
        group_commit: GroupCommit,
        waiting: ReadsAwaitingIndex,
    ) -> None:
        self._parts = parts
        self._group_commit = group_commit
        self._multipart = multipart
        self._waiting = waiting
        self._index, self._tree = parts.projections
        self._started = time.monotonic()
        self._line_at = self._started, parts.journal.mark.position

    def hello(self, header: RequestHeader, access: str, *, may_delete: bool) -> dict[str, Any]:
        """The body of the answer to `hello`, wire.md section 4.5."""
        parts, settings = self._parts, self._parts.settings
        most = self._group_commit.request_bytes_max
        epoch = parts.journal.epochs.at(parts.journal.mark.position)
        hello: dict[str, Any] = {
            "server": "perstack-stored",
            "version": __version__,
            "versions": [frames.PROTOCOL_VERSION],
            "base": parts.base,
            "store": parts.journal.store.hex(),
            **({} if epoch is None else {"epoch": epoch}),
            **({} if parts.replication is None else {"replicated": True}),
            "access": access,
            "mayDelete": may_delete,
            "features": list(FEATURES),
            "window": {"records": settings.window_records, "bytes": settings.window_bytes},
            "limits": {
                "frameBytes": min(settings.frame_bytes_max, most),
                "valueBytes": min(settings.value_bytes_max, most),
                "answerBytes": settings.answer_bytes,
                "batchItems": settings.batch_items_max,
                "headerBytes": frames.HEADER_BYTES_MAX,
                "readAllRecords": READ_ALL_RECORDS_MAX,
                "sessionSeconds": settings.session_seconds,
                "partsSeconds": settings.parts_seconds,
                "readSeconds": settings.read_seconds,
            },
        }
        key = frames.session_key(header)
        if key is not None:
            hello["session"] = {"last": parts.sessions.last_of(key)}
        return hello

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and gauges; daemon/docs/stats.md describes the names.

        May be called from another thread.
        """
        parts, committer = self._parts, self._group_commit.committer
        mark, loop, keeper, reads = parts.journal.mark, parts.counters, parts.keeper, parts.reads
        return {
            "uptimeSeconds": round(time.monotonic() - self._started, 3),
            "position": mark.position,
            "journal": {
                "segment": mark.segment,
                "offset": mark.offset,
                "syncs": parts.journal.syncs,
                "syncSeconds": round(loop.syncs.total, 6),
                "slowSyncs": loop.slow_syncs,
                "packed": keeper.describe(),
            },
            "messages": loop.messages,
            "stored": {frames.STORE_OPS[kind]: committer.stored.get(kind, 0) for kind in frames.STORE_OPS},
            "repeated": committer.answers.repeated,
            "deletions": {
                "stored": committer.stored.get(Kind.DELETION, 0),
                "guards": len(committer.guards),
                "guardsEndedEarly": committer.guards.ended_early,
                "pending": self._index.pending,
                "oldestSeconds": self._oldest_deletion_seconds(),
                "erasedRecords": keeper.erased_records,
                "fault": self._erase_fault() if self._index.pending else "",
            },
            "retention": {**parts.retention.describe(), "timeMs": parts.journal.clock.latest_aged_ms},
            "refused": self.refused(),
            "held": {"requests": len(self._group_commit), "bytes": self._group_commit.bytes},
            "partsBytes": self._multipart.bytes,
            "reads": {
                "waiting": len(self._waiting) + len(self._waiting.ahead),
                "pending": reads.pending,
                "following": len(reads.long_polls),
                "answered": sum(sum(counter.outcomes.copy().values()) for counter in reads.counters),
                "failed": reads.failed,
            },
            "outbox": parts.endpoints.answers(),
            "connections": parts.endpoints.connections(),
            "sessions": len(parts.sessions),
            "cursors": self._cursors(mark.position),
            "replication": self._group_commit.describe(),
            "index": {**self.projection(self._index), "rebuilds": self._index.rebuilds},
            "tree": {
                **self.projection(self._tree),
                "blocked": self._tree.blocked,
                "whole": loop.tree_is_whole,
            },
            "mirror": self._mirror_state(parts.mirror),
            "treeMirror": self._mirror_state(parts.tree_mirror),
            "copy": parts.copying.describe(),
        }

    def _erase_fault(self) -> str:
        """Why a pending deletion can't be erased: it waits for index and tree, so their faults count too."""
        waits = (f"the {item.kind}: {item.fault}" for item in (self._index, self._tree) if item.fault)
        return self._parts.keeper.erase_fault or next(waits, "")

    def _mirror_state(self, mirror: Mirror) -> dict[str, Any]:
        """The state of a mirror, and how far it is."""
        mark, place = self._parts.journal.mark, mirror.place
        # After a crash the bucket may hold bytes that were written again in the next segment.
        lag_bytes = None if place is None else max(0, self._parts.journal.bytes_between(place))
        return {
            **mirror.describe(),
            "position": None if place is None else place.position,
            "lagRecords": None if place is None else max(0, mark.position - place.position),
            "lagBytes": lag_bytes,
            "lagSeconds": round(mirror.lag_seconds(), 3),
        }

    def _oldest_deletion_seconds(self) -> int:
        """Age of the oldest deletion that is not erased."""
        if not self._index.pending:
            return 0
        return max(0, time.time_ns() // 1_000_000 - self._index.oldest_ms) // 1000

    def _cursors(self, position: int) -> dict[str, Any]:
        """The count of named cursors, and the lags of those furthest back."""
        cursors = self._parts.sessions.cursors.all()
        lags = sorted(((position - cursor.position, name) for name, cursor in cursors), reverse=True)
        return {
            "count": len(cursors),
            "maxLagRecords": max(0, lags[0][0]) if lags else 0,
            "lagRecords": {name: max(0, lag) for lag, name in lags[:CURSORS_SHOWN_MAX]},
        }

    def refused(self) -> dict[str, int]:
        """Count errors by code: stores, items of batches, and reads. May be called from another thread."""
        counts = Counter(
            {str(code): count for code, count in self._group_commit.committer.answers.refused.copy().items()}
        )
        return dict(counts + Counter(self._parts.reads.refused()))

    def line(self) -> str:
        """Return the main counters in one line for people; rates are since the last line."""
        now, position = time.monotonic(), self._parts.journal.mark.position
        before, from_position = self._line_at
        self._line_at = now, position
        rate = (position - from_position) / max(now - before, 1e-3)
        lags = ", ".join(f"{item.kind} {self._lag_text(item)}" for item in (self._index, self._tree))
        refused = sum(self.refused().values())
        return (
            f"position {position}; {rate:.0f} records/s; {len(self._parts.sessions)} sessions;"
            f" {refused} refused; behind: {lags}"
        )

    def _lag_text(self, projection: Projection) -> str:
        if projection.fault:
            return f"stopped by: {projection.fault}"
        return (
            "starting"
            if projection.place is None
            else str(self._parts.journal.mark.position - projection.place.position)
        )

    def projection(self, projection: Projection) -> dict[str, Any]:
        """Return progress and state of index or tree."""
        mark, place = self._parts.journal.mark, projection.place
        lag = (
            0.0
            if place is None
            else self._parts.counters.course.lag_seconds(time.monotonic(), place.position)
        )
        return {
            "position": None if place is None else place.position,
            "lagRecords": None if place is None else mark.position - place.position,
            "lagBytes": None if place is None else self._parts.journal.bytes_between(place),
            "lagSeconds": None if place is None else round(lag, 3),
            "fault": projection.fault,
            "faults": projection.faults,
            "starts": projection.starts,
        }
