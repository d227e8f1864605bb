"""What the daemon knows of each client session, so that a store that is sent again is stored once. No I/O.

A session is the last number seen, and the positions that its recent stores got. The state is a function of
the journal: each entry carries session and number, and each segment begins with a snapshot of all sessions.
"""

import struct
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perstack_storage._errors import ErrorCode

from .errors import Refusal
from .gaps import GapRange

_SESSION = struct.Struct("<16sQQH")
_RUN = struct.Struct("<QQI")
_RUNS_MAX = 0xFFFF  # their number has 16 bits in a snapshot


class Run(NamedTuple):
    """Stores with consecutive numbers that stand at consecutive positions."""

    seq: int
    position: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs


def _without(run: Run, lost: Sequence[GapRange]) -> Iterator[Run]:
    """The parts of a run that lie in none of the ranges, which are in order."""
    seq, position, count = run
    for gap in lost:
        if gap.last < position or gap.first >= position + count:
            continue
        if gap.first > position:
            yield Run(seq, position, gap.first - position)
        passed = gap.last + 1 - position
        seq, position, count = seq + passed, position + passed, count - passed
        if count <= 0:
            return
    yield Run(seq, position, count)


class Session:
    """State of one session; `used_ms` is the daemon's time of its last store.

    `last` is the highest number admitted, `written` the highest one in the journal: a store may still be on
    its way there.
    """

    __slots__ = ("last", "runs", "used_ms", "written")

    def __init__(self, last: int = 0, used_ms: int = 0) -> None:
        self.last = self.written = last
        self.used_ms = used_ms
        self.runs: deque[Run] = deque()

    def admit(self, seq: int, count: int, settled: int) -> int:
        """Take the numbers seq … seq+count-1 and return how many of them, from the front, were seen before.

        Raises:
            Refusal: SEQUENCE_GAP, if a number before `seq` is missing and not settled.
        """
        runs = self.runs
        while runs and runs[0].seq + runs[0].count - 1 <= settled:
            runs.popleft()
        expected = self.last + 1
        if seq > expected and settled < seq - 1:
            raise Refusal(
                ErrorCode.SEQUENCE_GAP,
                f"store number {seq} came, but number {expected} has not come yet",
                "seq",
            )
        self.last = max(self.last, seq + count - 1)
        return min(max(0, expected - seq), count)

    def stored(self, seq: int, position: int, count: int, remembered_max: int) -> None:
        """Remember the positions that a run of stores got."""
        runs = self.runs
        self.written = max(self.written, seq + count - 1)
        if runs and (seq, position) == (runs[-1].seq + runs[-1].count, runs[-1].position + runs[-1].count):
            runs[-1] = runs[-1]._replace(count=runs[-1].count + count)
        else:
            runs.append(Run(seq, position, count))
        # A client with a window of w has at most w unanswered; anything older can't be asked for again.
        while len(runs) > 1 and runs[-1].seq + runs[-1].count - runs[0].seq > remembered_max + runs[0].count:
            runs.popleft()

    def position_of(self, seq: int) -> int | None:
        """Position that a store got, or None if it was refused or is forgotten."""
        for run in reversed(self.runs):
            if run.seq <= seq < run.seq + run.count:
                return run.position + seq - run.seq
        return None


class Sessions:
    """All sessions, least recently used first."""

    def __init__(self, *, sessions_max: int, session_seconds: int, remembered_records_max: int) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._unwritten: OrderedDict[bytes, Session] = OrderedDict()  # those of them that have stored nothing
        self._sessions_max = sessions_max
        self._keep_ms = session_seconds * 1000
        self._remembered_max = remembered_records_max

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: bytes) -> Session | None:
        """The session, if it is known."""
        return self._sessions.get(key)

    def open(self, key: bytes, now_ms: int) -> Session:
        """The session for a store that came in now; made if it is not known.

        Raises:
            Refusal: BUSY, if there are too many sessions and all were used a short while ago.
        """
        session = self._sessions.get(key)
        if session is not None:
            self._sessions.move_to_end(key)
            if not session.written:
                self._unwritten.move_to_end(key)
            session.used_ms = now_ms
            return session
        if len(self._sessions) >= self._sessions_max:
            self._forget_one(now_ms)
        session = self._sessions[key] = self._unwritten[key] = Session(0, now_ms)
        return session

    def _forget_one(self, now_ms: int) -> None:
        """Make room for a session, first by one that a restart would not know either: it has stored nothing.

        One of this very moment may have stores on their way to the journal, in the same batch.
        """
        key, oldest = next(iter(self._unwritten.items()), (b"", None))
        if oldest is None or oldest.used_ms >= now_ms:
            key, oldest = next(iter(self._sessions.items()))
            if now_ms - oldest.used_ms < self._keep_ms:
                raise Refusal(ErrorCode.BUSY, f"there are {self._sessions_max} sessions in use already")
        self._forget(key)

    def _forget(self, key: bytes) -> None:
        del self._sessions[key]
        self._unwritten.pop(key, None)

    def forget_empty(self, key: bytes) -> None:
        """Drop a session that was opened by a store that then came to nothing."""
        session = self._sessions.get(key)
        if session is not None and session.last == 0:
            self._forget(key)

    def stored(self, key: bytes, seq: int, position: int, count: int) -> None:
        """Note the positions of stores that are in the journal now."""
        session = self._sessions.get(key)
        if session is not None:
            if not session.written:
                self._unwritten.pop(key, None)
            session.stored(seq, position, count, self._remembered_max)

    def pass_over(self, key: bytes, seq: int, time_ms: int) -> None:
        """Take up, during recovery, that the stores up to a number came, but have no positions (any more)."""
        session = self._sessions.setdefault(key, Session())
        self._sessions.move_to_end(key)
        session.used_ms = time_ms
        session.last = session.written = max(session.last, seq)

    def forget_positions(self, lost: Sequence[GapRange]) -> bool:
        """Forget positions whose records were lost; whether there were any."""
        found = False
        for session in self._sessions.values():
            kept = deque(part for run in session.runs for part in _without(run, lost))
            found |= kept != session.runs
            session.runs = kept
        return found

    def replay(self, key: bytes, seq: int, position: int, count: int, time_ms: int) -> None:
        """Take up an entry of the journal during recovery."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session()
        self._sessions.move_to_end(key)
        session.used_ms = time_ms
        session.last = max(session.last, seq + count - 1)
        session.stored(seq, position, count, self._remembered_max)
        while len(self._sessions) > self._sessions_max:
            self._sessions.popitem(last=False)

    def snapshot(self) -> bytes:
        """All sessions as bytes, for the head of a segment.

        Numbers admitted that are not in the journal yet are left out, and sessions that have no others: the
        crash before somebody reads this may have lost their stores.
        """
        pieces = []
        for key, session in self._sessions.items():
            if not session.written:
                continue
            runs = list(session.runs)[-_RUNS_MAX:]
            pieces.append(_SESSION.pack(key, session.written, session.used_ms, len(runs)))
            pieces.extend([_RUN.pack(*run) for run in runs])
        return b"".join(pieces)

    def restore(self, data: bytes | memoryview) -> None:
        """Replace everything by a snapshot whose checksum was tested."""
        self._sessions.clear()
        self._unwritten.clear()
        offset = 0
        while offset < len(data):
            key, last, used_ms, runs = _SESSION.unpack_from(data, offset)
            offset += _SESSION.size
            session = Session(last, used_ms)
            if last:
                self._sessions[key] = session
            for _ in range(runs):
                session.runs.append(Run(*_RUN.unpack_from(data, offset)))
                offset += _RUN.size
