"""What the connections of a client know of the history that their daemons share. No I/O."""

from perstack_storage._core.errors import EndpointError, OtherHistory
from perstack_storage._core.frames import Limits

_KEPT_MAX = 64


class SharedHistory:
    """Its name, and which positions of it the client has seen.

    There is no lock: threads share it, and a signal handler may come at any step.

    Attributes:
        store: the name of the history; "" before a daemon was met.
        several: whether the client may go over to other daemons.
    """

    def __init__(self, *, several: bool) -> None:
        """Knows nothing yet."""
        self.store = ""
        self.several = several
        self._seen: dict[int, None] = {}
        self._newest = 0

    def problem(self, limits: Limits) -> EndpointError | None:
        """Returns why a daemon must not be used, by its `hello`; else notes its history."""
        if not self.several:
            if limits.store != self.store:
                self._seen.clear()  # positions of another history mean nothing here
                self._newest = 0
            self.store = limits.store
            return None
        if not limits.replicated:
            return OtherHistory(
                "it shares its history with no other daemon: a client with several endpoints needs daemons of"
                " one replicated journal"
            )
        if self.store and limits.store != self.store:
            return OtherHistory(f"it serves the history {limits.store[:64]}, not {self.store[:64]}")
        self.store = limits.store
        return None

    def note(self, position: int) -> None:
        """Notes a position that was in an answer."""
        if position > self._newest:
            self._seen[position] = None
            self._newest = position  # of two threads the lower one may be last: then some more are kept
            if len(self._seen) > _KEPT_MAX:
                for lower in sorted(self._seen)[:-1]:
                    self._seen.pop(lower, None)

    @property
    def position(self) -> int:
        """The highest position that was noted."""
        return max(list(self._seen), default=0)
