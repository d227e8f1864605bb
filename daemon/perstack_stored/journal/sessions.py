"""Sessions: remember the stores of clients, so that a retry is stored once (deduplication). No I/O.

The state is a function of the journal: each entry carries session and number, and each segment begins with a
snapshot of all sessions.

A session that gives way to others keeps its last number for a time, without positions: a retry in it
is answered with SEQUENCE_OLD, and never stored twice.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.shares import NOBODY, Client, Owned

from . import log_place, session_snapshot
from .cursors import Cursors
from .deletion_guards import DeletionGuards
from .log_place import NO_STREAM, LogPlace
from .logged_writers import LoggedWriters
from .outlines import Outlines
from .position_runs import PositionRuns
from .session import NEW, Session, without

RUNS_MAX = 65_536  # of all sessions together: 1 MiB of memory, and at most 0.4 MiB at the head of a segment


class Sessions:
    """All sessions, least recently used first.

    Attributes:
        gave_way: count of sessions whose positions were forgotten early to make room for others.
        guards: deletions that stores of sessions from before must not undo.
        cursors: named cursors; they are kept as the sessions are.
        log: the place in a replicated log that is applied.
        writers: who stored last for jobs, as that log tells.
    """

    def __init__(
        self,
        *,
        sessions_max: int,
        session_seconds: int,
        remembered_records_max: int,
        runs_max: int = RUNS_MAX,
        guards: DeletionGuards | None = None,
    ) -> None:
        self.guards = guards or DeletionGuards()
        self.cursors = Cursors()
        self.log = LogPlace()
        self.writers = LoggedWriters()
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._owned: Owned[bytes] = Owned()
        self._unwritten: OrderedDict[bytes, Session] = OrderedDict()  # sessions that have stored nothing
        self._outlines = Outlines(session_seconds)
        self._sessions_max = sessions_max
        self._keep_seconds = session_seconds
        self._remembered_max = remembered_records_max
        self._runs_max = runs_max
        self._runs = 0  # upper bound of the count of runs
        # No clock can be trusted across a restart: sessions found in the journal count as used just now.
        self._begun = time.monotonic()
        self.gave_way = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: bytes) -> Session | None:
        """Return the session if its positions are known."""
        return self._sessions.get(key)

    def last_of(self, key: bytes) -> int:
        """The last number of a session, 0 if it is not known."""
        session = self._sessions.get(key)
        outline = self._outlines.get(key)
        return session.last if session else outline.written if outline else 0

    def open(self, key: bytes, now_ms: int, client: Client = NOBODY, now: float | None = None) -> Session:
        """Return the session for a store that came in now; create it if it is not known.

        Args:
            key: its name.
            now_ms: the daemon's time, which is journalled.
            client: the client that stores.
            now: time.monotonic() of the batch.

        Raises:
            Refusal: BUSY; there are too many sessions and none may give way to this one, or a retry of this
                client's could not be distinguished from a new session's store.
        """
        if now is None:
            now = time.monotonic()
        session = self._sessions.get(key)
        if session is None:
            if len(self._sessions) >= self._sessions_max:
                self._make_room(key, client, now)
            return self._begin(key, now_ms, client, now)
        self._sessions.move_to_end(key)
        if not session.written:
            self._unwritten.move_to_end(key)
        session.used_ms, session.used = now_ms, now
        if session.client == client:
            self._owned.use(key, client)
        else:
            self._owned.remove(key, session.client)
            self._owned.add(key, client)
            session.client = client
        return session

    def _begin(self, key: bytes, now_ms: int, client: Client, now: float) -> Session:
        outline = self._outlines.get(key)
        if outline is None:
            self._outlines.refuse_doubtful(client, now)
            session = self._unwritten[key] = Session(0, now_ms, now, client)
            session.begun = NEW
        else:
            self._outlines.forget(key)
            session = Session(outline.written, now_ms, now, client)
            session.begun = outline.begun
        self._sessions[key] = session
        self._owned.add(key, client)
        return session

    # --- bounds ------------------------------------------------------------------------------------

    def _make_room(self, key: bytes, client: Client, now: float) -> None:
        """Make room for a new session of a client.

        Order of eviction: a session that has stored nothing, which a restart would forget too; one that has
        expired; the least recently used one of the client that holds most, or of this client itself if no
        other must yield. One used at this moment stays, as its stores may be on their way to the journal in
        the same batch.

        Raises:
            Refusal: BUSY.
        """
        if key not in self._outlines:
            self._outlines.refuse_doubtful(client, now)
        first, oldest = next(iter(self._unwritten.items()), (b"", None))
        if oldest is None or oldest.used >= now:
            first, oldest = next(iter(self._sessions.items()))
            if oldest.used >= now or now - oldest.used < self._keep_seconds:
                self._outline_one(key, client, now)
                return
        self._forget(first)

    def _outline_one(self, wanted: bytes, newcomer: Client, now: float) -> None:
        busy = Refusal(ErrorCode.BUSY, f"there are {self._sessions_max} sessions in use already")
        client = self._owned.shares.must_yield(newcomer)
        if client is None:
            if not self._owned.shares.of(newcomer):
                raise busy
            client = newcomer  # one of its own gives way
        key = self._owned.oldest(client)
        session = self._sessions[key]
        if session.used >= now or not session.written:
            raise busy
        outlines = len(self._outlines) - (wanted in self._outlines)  # its own is not needed any more
        if outlines >= self._sessions_max and not self._outlines.drop_one(newcomer, now):
            raise busy
        self._outline(key, session)
        self.gave_way += 1

    def _outline(self, key: bytes, session: Session) -> None:
        self._forget(key)
        self._outlines.add(key, session)

    def _forget(self, key: bytes) -> None:
        session = self._sessions.pop(key)
        self._owned.remove(key, session.client)
        self._unwritten.pop(key, None)

    def forget_empty(self, key: bytes) -> None:
        """Drop a session without any admitted number: its first store was refused."""
        session = self._sessions.get(key)
        if session is not None and session.last == 0:
            self._forget(key)

    # --- positions ---------------------------------------------------------------------------------

    def stored(self, key: bytes, seq: int, position: int, count: int) -> None:
        """Remember the positions of stores that are in the journal now."""
        session = self._sessions.get(key)
        if session is not None:
            if not session.written:
                self._unwritten.pop(key, None)
            self._runs += session.stored(seq, position, count, self._remembered_max)
            if self._runs > self._runs_max:
                self._bound_runs()

    def _bound_runs(self) -> None:
        """Bound the runs of all sessions: clients above a share lose those of sessions used longest ago."""
        held: dict[Client, int] = {}
        for session in self._sessions.values():
            held[session.client] = held.get(session.client, 0) + len(session.runs)
        self._runs = sum(held.values())
        wanted = self._runs_max * 3 // 4
        if self._runs <= wanted:
            return
        share = _share_of(sorted(held.values()), wanted)
        for session in self._sessions.values():
            if held[session.client] > share:
                held[session.client] -= len(session.runs)
                self._runs -= len(session.runs)
                session.runs.clear()
                session.forgotten = session.written
                if self._runs <= wanted:
                    return

    # --- recovery ----------------------------------------------------------------------------------

    def _known(self, key: bytes, time_ms: int) -> Session:
        session = self._sessions.get(key)
        if session is None:
            outline = self._outlines.get(key)
            if outline is not None:
                self._outlines.forget(key)
            session = self._sessions[key] = Session(outline.written if outline else 0)
            session.begun = outline.begun if outline else 0
            self._owned.add(key, NOBODY)
        self._sessions.move_to_end(key)
        self._owned.use(key, session.client)
        session.used_ms, session.used = time_ms, self._begun
        return session

    def _bound(self) -> None:
        while len(self._sessions) > self._sessions_max:
            key, session = next(iter(self._sessions.items()))
            self._outline(key, session)
        while len(self._outlines) > self._sessions_max:
            self._outlines.forget_first()

    def pass_over(self, key: bytes, seq: int, time_ms: int) -> None:
        """Replay that the stores up to a number came, but have no positions (any more)."""
        session = self._known(key, time_ms)
        session.last = session.written = max(session.last, seq)
        self._bound()

    def forget_positions(self, lost: Sequence[GapRange]) -> bool:
        """Forget the positions of lost records; return whether there were any."""
        found = False
        for session in self._sessions.values():
            before = list(session.runs)
            kept = [part for run in before for part in without(run, lost)]
            if kept != before:
                found = True
                session.runs.clear()
                for run in kept:
                    session.runs.add(*run)
        return found

    def replay(self, key: bytes, seq: int, position: int, count: int, time_ms: int) -> None:
        """Replay an entry of the journal during recovery."""
        session = self._known(key, time_ms)
        if not session.last and seq == 1:
            session.begun = position - 1
        session.last = max(session.last, seq + count - 1)
        self.stored(key, seq, position, count)
        self._bound()

    def snapshot(self) -> bytes:
        """Encode all sessions for the head of a segment; first those that gave way.

        Numbers that are admitted but not in the journal yet are left out, as are sessions that have no
        other numbers: a crash may still lose their stores.
        """
        none = PositionRuns()
        kept = [(key, one.written, one.used_ms, none) for key, one in self._outlines.items()]
        kept += [
            (key, one.written, one.used_ms, one.runs) for key, one in self._sessions.items() if one.written
        ]
        return session_snapshot.encode(kept)

    def guards_snapshot(self) -> bytes:
        """Encode the deletion guards for the head of a segment; nothing if there are none."""
        begun = [
            (key, one.begun) for all_of in (self._outlines, self._sessions) for key, one in all_of.items()
        ]
        return self.guards.snapshot(begun)

    def log_snapshot(self) -> bytes:
        """Encode the place in the log for the head of a segment; nothing without a log."""
        return b"" if self.log.stream == NO_STREAM else log_place.encode(self.log)

    def begin_message(self, data: bytes | memoryview) -> None:
        """Replay what an entry with a place in the log says of the records before it, of its message."""
        place, _ = log_place.decode(data)
        if place.fenced and not self.log.fenced and place.fenced == self.log.position + 1:
            self.writers.begin(self.log.position)
            self.writers.written()

    def replay_log(self, data: bytes | memoryview, time_ms: int) -> None:
        """Replay an entry with a place in the log."""
        self.log, refused = log_place.decode(data)
        if self.log.fenced and not self.writers.active:
            self.writers.lose()
        for session, through in refused:
            self.pass_over(session, through, time_ms)

    def restore_guards(self, data: bytes | memoryview) -> None:
        """Replace the deletion guards by a snapshot whose checksum was tested; the sessions are restored."""
        for key, begun in self.guards.restore(data).items():
            session = self._sessions.get(key)
            outline = self._outlines.get(key)
            if session is not None:
                session.begun = begun
            elif outline is not None:
                self._outlines.set_begun(key, begun)

    def restore(self, data: bytes | memoryview) -> None:
        """Replace all sessions by a snapshot whose checksum was tested."""
        for all_of in (self._sessions, self._unwritten, self._outlines):
            all_of.clear()
        self._owned = Owned()
        self.guards.clear()
        self.cursors.clear()
        self.log = LogPlace()
        self.writers.clear()
        self._runs = 0
        for key, written, used_ms, runs in session_snapshot.decode(data):
            if not written:
                continue
            session = self._known(key, used_ms)
            session.last = session.written = written
            for run in runs:
                self._runs += session.runs.add(*run)
            before = session.runs.before_first()
            session.forgotten = written if before is None else before
            self._bound()
        if self._runs > self._runs_max:
            self._bound_runs()


def _share_of(held: list[int], wanted: int) -> int:
    """Return the share at which clients that hold `held` (sorted) keep `wanted` in total."""
    left = wanted
    for n, amount in enumerate(held):
        each = left // (len(held) - n)
        if amount > each:
            return each
        left -= amount
    return left
