"""A daemon that is not there: noticed early where none can be listening, and named at a terminal."""

import contextlib
import errno
import math
import os
import sys
import time

from perstack_storage._core.errors import start_command
from perstack_storage._core.escape import shell_word

RESTART_S = 1.0
"""A daemon that is being started again has this time to make its socket."""
NOTE_AFTER_S = 1.0
RESTED_S = 0.5
"""A client that waits tries more often: after this time without a try a new wait begins."""
_NO_SOCKET = frozenset({errno.ENOENT, errno.ENOTDIR})
_STDERR = 2
_NOTED = "noted"
_noted: dict[str, object] = {}  # in this process


class Absence:
    """What the connections of a client know of a daemon that they have not reached.

    There is no lock: threads share it, and a signal handler may come at any step. At worst a wait is a
    little longer or shorter.
    """

    def __init__(self, endpoint: str, base: str | None) -> None:
        """Knows nothing yet; `base` is None where the endpoint was named."""
        self._endpoint, self._base = endpoint, base
        self._met = False
        self._missing_since: float | None = None
        self._waiting_since = self._tried_at = -math.inf

    def met(self) -> None:
        """A connection was made: a socket that is missing later means a restart, which is ridden out."""
        self._met = True
        self._missing_since = None
        self._tried_at = -math.inf

    def missed(self, error: OSError) -> bool:
        """Notes why no connection was made; returns whether there is no use in waiting for one.

        There is none where the endpoint is that of a base, no daemon was met, and there is no socket. Where
        a daemon has served the base before, it may be starting again, and has a second.
        """
        now = time.monotonic()
        base = self._base
        if base is None or self._met or error.errno not in _NO_SOCKET:
            self._missing_since = None
        else:
            since = self._missing_since
            if since is None:
                since = self._missing_since = now
            if now - since >= RESTART_S or not os.path.isdir(os.path.join(base, ".stored")):
                return True
        return False

    def waits(self) -> None:
        """Somebody waits for a connection; after a second of that a line says so."""
        now = time.monotonic()
        if now - self._tried_at > RESTED_S:
            self._waiting_since = now
        self._tried_at = now
        if now - self._waiting_since >= NOTE_AFTER_S:
            self._note()

    def _note(self) -> None:
        """Once in a process, and to a terminal only: what a program has put in its place is its own."""
        mine = object()
        if sys.stderr is not sys.__stderr__ or not os.isatty(_STDERR):
            return
        if _noted.setdefault(_NOTED, mine) is not mine:
            return
        line = (
            f"perstack-storage: waiting for a daemon at {shell_word(self._endpoint)}; "
            f"start one: {start_command(self._endpoint, self._base)}\n"
        )
        with contextlib.suppress(OSError):  # the error of the call says it too
            os.write(_STDERR, line.encode(errors="backslashreplace"))
