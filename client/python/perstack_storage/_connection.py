"""One DEALER socket and the protocol it carries; used by one thread at a time."""

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import zmq

from perstack_storage._errors import (
    ClosedError,
    DaemonUnavailable,
    OutcomeUnknown,
    Refused,
    StorageError,
)
from perstack_storage._protocol import ClientProtocol
from perstack_storage._reads import Read
from perstack_storage._stores import BATCH_BYTES_MAX, Batch, Sink

RECONNECT_MIN_MS = 20
RECONNECT_MAX_MS = 500
DRAIN_EVERY_ITEMS = 16
DRAIN_EVERY_S = 0.001


class _Awaited(Protocol):
    done: bool


class Connection:
    """Stores and reads of one thread: one socket, one session."""

    def __init__(
        self, context: Callable[[], zmq.Context[zmq.Socket[bytes]]], endpoint: str, base: str | None, timeout_s: float
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._base = base
        self._timeout_s = timeout_s
        self._protocol = ClientProtocol(os.urandom(16).hex())
        self._stores = self._protocol.stores
        self._socket: zmq.Socket[bytes] | None = None
        self._poller = zmq.Poller()
        self._blocked = False  # the socket took no frame: there is no connection at the moment
        self._owner = (os.getpid(), threading.get_ident())
        self._since_drain = 0
        self._drained_at = 0.0
        self.closed = False
        self.busy = False

    def store(self, op: str, body: bytes) -> int:
        """Stores one value and waits; returns its position."""
        self._enter()
        try:
            deadline = time.monotonic() + self._timeout_s
            self._make_room(len(body), math.inf, deadline)
            self._stores.seal()
            batch = self._stores.add(op, body, None)
            self._stores.seal()
            self._wait_for(batch, deadline)
        finally:
            self.busy = False
        outcome = batch.outcomes[0]
        if type(outcome) is int:
            return outcome
        raise Refused(outcome, op=op)  # type: ignore[arg-type]
