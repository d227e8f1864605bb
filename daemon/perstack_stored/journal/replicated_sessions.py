"""Sessions of a replicated journal: a function of the log alone, so that all daemons judge a store alike.

A session is used when a store of it is in the journal, at the log's time. What a daemon sees besides the
log has no effect: who asked, its own clock, repeats, and stores that were refused before they are published.
"""

from perstack_stored.model.shares import NOBODY, Client

from .deletion_guards import DeletionGuards
from .logged_writers import LOGGED_KEYS_MAX, LoggedWriters
from .session import NEW, Session
from .sessions import Sessions


class ReplicatedSessions(Sessions):
    """Sessions whose order, and whose end, follow from the journal."""

    def __init__(
        self,
        *,
        sessions_max: int,
        remembered_records_max: int,
        guards: DeletionGuards | None = None,
        writers_max: int = LOGGED_KEYS_MAX,
    ) -> None:
        super().__init__(
            sessions_max=sessions_max,
            session_seconds=0,
            remembered_records_max=remembered_records_max,
            guards=guards,
        )
        self.writers = LoggedWriters(writers_max)
        self._opened: dict[bytes, Session] = {}  # of a message that is being applied, not in the journal yet

    def open(self, key: bytes, now_ms: int, client: Client = NOBODY, now: float | None = None) -> Session:
        """Return the session of a store. One that is not known counts once something of it is written."""
        del now_ms, client, now  # who stores, and when, has no effect
        session = self._sessions.get(key) or self._opened.get(key)
        if session is None:
            outline = self._outlines.get(key)
            session = self._opened[key] = Session(outline.written if outline else 0)
            session.begun = outline.begun if outline else NEW
        return session

    def forget_empty(self, key: bytes) -> None:
        """Drop a session without any admitted number: its first store was refused."""
        session = self._opened.get(key)
        if session is not None and session.last == 0:
            del self._opened[key]

    def stored_at(self, key: bytes, seq: int, position: int, count: int, time_ms: int) -> None:
        """Remember the positions of stores that are in the journal now."""
        session = self._write(key, time_ms, position - 1 if seq == 1 else 0)
        session.last = max(session.last, seq + count - 1)  # it may have given way to others of the message
        self.stored(key, seq, position, count)
        self._bound()

    def refused_upto(self, key: bytes, seq: int, time_ms: int) -> None:
        """Note that the stores up to a number came; what has no position among them was refused."""
        self._write(key, time_ms, 0)
        self.pass_over(key, seq, time_ms)

    def applied(self) -> None:
        """End a message: sessions of which nothing was written are forgotten."""
        self._opened.clear()

    def _write(self, key: bytes, time_ms: int, begun: int) -> Session:
        """Let a session count, exactly as a replay of the journal does; `begun` is for a new one."""
        opened = self._opened.pop(key, None)
        is_new = key not in self._sessions and key not in self._outlines
        session = self._known(key, time_ms)
        if opened is not None:
            session.last = opened.last
        if is_new:
            session.begun = begun
        return session
