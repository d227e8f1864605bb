"""How a client is made, the synchronous one and that for asyncio."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perstack_storage._core.epochs import SeenEpochs
from perstack_storage._core.outstanding import MAX_OUTSTANDING_DEFAULT, ErrorHandler, NowaitSettings
from perstack_storage._wire.target import TIMEOUT_DEFAULT_S, target_of

if TYPE_CHECKING:
    from perstack_storage._wire.keys import CurveKeys


class ClientBase:
    """What both clients are made with."""

    def __init__(
        self,
        endpoint: str | Sequence[str] | None = None,
        *,
        base_path: str | os.PathLike[str] | None = None,
        timeout_s: float = TIMEOUT_DEFAULT_S,
        max_outstanding: int = MAX_OUTSTANDING_DEFAULT,
        on_error: ErrorHandler | None = None,
        keys: "CurveKeys | None" = None,
    ) -> None:
        """Prepares a client; nothing is connected yet.

        Args:
            endpoint: the daemon's; else PERSTACK_STORED_ENDPOINT, else the socket of the base. Several, in a
                list or with commas between them, for daemons that share a replicated journal: one is used
                at a time, and the next one where it gets nowhere. Order and exactly-once hold over all.
            base_path: the base; else PERSTACK_STORED_BASE, else PERSTACK_STORAGE_PATH, else ./perstack.
                Where its socket is missing, calls fail at once, or after a second where a daemon has served
                it before. A client that has met its daemon, or whose endpoint was named, waits.
            timeout_s: how long a call waits before it gives up; stores that nobody waits for, and those of a
                pipeline, are given up when none was answered for so long.
            max_outstanding: number of `…_nowait` stores, of a thread or an event loop, that may be
                unanswered. Beyond it, and beyond 64 MiB, the next one blocks; that of the asyncio client
                raises TooMuchOutstanding, and `ready` waits for room.
            on_error: called with the error of each store that failed and that nobody waited for: `…_nowait`,
                or awaited by a task that was cancelled. The synchronous client calls it in a thread of its
                own or within a call; it should be quick, and may call the client, but not `flush` or `close`.
                The asyncio client calls it in the event loop.
            keys: for a daemon that is reached by tcp with CURVE; else what PERSTACK_STORED_SERVER_KEY (the
                daemon's public key) and PERSTACK_STORED_KEY_FILE (a file of `perstack-stored keygen`) name.

        Raises:
            EndpointError: no endpoint can be derived from the base, or there are no such keys.
            ValueError: `timeout_s` or `max_outstanding` is not positive.
        """
        self._target = target_of(endpoint, base_path, timeout_s, keys)
        self.endpoint, self.timeout_s = self._target.endpoint, timeout_s
        self._seen = SeenEpochs()
        self._nowait = NowaitSettings(max_outstanding, on_error)
        self._prepare()

    def _prepare(self) -> None:
        """Makes what only this kind of client has."""
        raise NotImplementedError
