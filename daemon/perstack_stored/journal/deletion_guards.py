"""Deletion guards: a store of a session that began before a deletion must not bring back what it deleted.

Guards are a function of the journal, as sessions are: the head of a segment repeats them, in an entry of
their own, with the positions at which the newest sessions began. No I/O.

     guards u32 | guards x ( position u64 | time u64 | size u16, job | size u16, run )
     sessions x ( session (16 bytes) | begun u64 )

A run of no bytes stands for the whole job. A session that is not named began before all of the guards.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

GUARDS_MAX = 65_536
"""Deletions that are guarded; beyond it the oldest guard ends early."""
GUARD_SECONDS = 86_400
BEGINS_NOW = 2**63
"""Where a store without a session counts as begun: it is newer than any deletion."""
_COUNT = struct.Struct("<I")
_GUARD = struct.Struct("<QQH")
_SIZE = struct.Struct("<H")
_BEGUN = struct.Struct("<16sQ")

Key = tuple[str, str]
"""Job and run; "" for the whole job."""


class Guard(NamedTuple):
    """Position of a deletion, and the daemon's time of it in ms."""

    position: int
    time_ms: int


class DeletionGuards:
    """Guards by job and run, the oldest first.

    Attributes:
        ended_early: count of guards that ended before their time, because there were too many.
    """

    def __init__(self, *, guard_seconds: int = GUARD_SECONDS, guards_max: int = GUARDS_MAX) -> None:
        self._guards: OrderedDict[Key, Guard] = OrderedDict()
        # Of a batch that is not in the journal yet. The head of a segment must not repeat them: a crash may
        # still lose their deletions.
        self._planned: dict[Key, Guard] = {}
        self._keep_ms = guard_seconds * 1000
        self._guards_max = guards_max
        self.ended_early = 0

    def __len__(self) -> int:
        return len(self._guards) + len(self._planned)

    def clear(self) -> None:
        """Forget all."""
        self._guards.clear()
        self._planned.clear()

    def plan(self, key: Key, guard: Guard) -> None:
        """Guard a deletion that is about to be written, against what follows it in its batch."""
        self._planned[key] = guard

    def written(self) -> None:
        """Note that the deletions that were planned are in the journal."""
        for key, guard in self._planned.items():
            self.put(key, guard)
        self._planned.clear()

    def take_back(self) -> None:
        """Forget what was planned: it was not written."""
        self._planned.clear()

    def get(self, key: Key) -> Guard | None:
        """The guard of a job or run."""
        return self._guards.get(key)

    def put(self, key: Key, guard: Guard | None) -> None:
        """Set or remove the guard of a job or run. Deletions come in the order of their positions."""
        self._guards.pop(key, None)
        if guard is None:
            return
        self._guards[key] = guard
        while len(self._guards) > self._guards_max:
            self._guards.popitem(last=False)
            self.ended_early += 1

    def expire(self, now_ms: int) -> None:
        """Forget the guards whose time is over."""
        while self._guards:
            key, guard = next(iter(self._guards.items()))
            if now_ms - guard.time_ms < self._keep_ms:
                return
            del self._guards[key]

    def check(self, job: str, run: str, begun: int) -> None:
        """Check a store of a session that began after position `begun`.

        Raises:
            Refusal: DELETED.
        """
        for name, field in (("", "jobId"), (run, "runId")):
            guard = self._planned.get((job, name)) or self._guards.get((job, name))
            if guard is not None and guard.position > begun:
                what = "run" if name else "job"
                raise Refusal(
                    ErrorCode.DELETED,
                    f"the {what} was deleted at position {guard.position}, after this session began",
                    field,
                )

    @property
    def newest(self) -> int:
        """Position of the newest guard; 0 if there is none."""
        return next(reversed(self._guards.values())).position if self._guards else 0

    # --- snapshot ----------------------------------------------------------------------------------

    @property
    def oldest(self) -> int:
        """Position of the oldest guard; 0 if there is none."""
        return next(iter(self._guards.values())).position if self._guards else 0

    def snapshot(self, begun: Iterable[tuple[bytes, int]]) -> bytes:
        """Encode all guards, and where sessions began; nothing if there are no guards."""
        if not self._guards:
            return b""
        pieces = [_COUNT.pack(len(self._guards))]
        for (job, run), guard in self._guards.items():
            job_bytes, run_bytes = job.encode(), run.encode()
            pieces += [_GUARD.pack(*guard, len(job_bytes)), job_bytes, _SIZE.pack(len(run_bytes)), run_bytes]
        pieces += [_BEGUN.pack(key, position) for key, position in begun if position >= self.oldest]
        return b"".join(pieces)

    def restore(self, data: bytes | memoryview) -> dict[bytes, int]:
        """Replace all guards by a snapshot whose checksum was tested; returns where sessions began."""
        data = bytes(data)
        self.clear()
        (count,) = _COUNT.unpack_from(data)
        offset = _COUNT.size
        for _ in range(count):
            position, time_ms, size = _GUARD.unpack_from(data, offset)
            offset += _GUARD.size
            job = data[offset : offset + size].decode()
            offset += size
            (size,) = _SIZE.unpack_from(data, offset)
            offset += _SIZE.size
            run = data[offset : offset + size].decode()
            offset += size
            self.put((job, run), Guard(position, time_ms))
        return dict(_BEGUN.iter_unpack(data[offset:]))
