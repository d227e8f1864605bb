"""A wire and the protocol it carries, without any waiting; what both clients' connections share."""

import math
import os
from typing import TYPE_CHECKING

from perstack_storage._core.batch import Batch
from perstack_storage._core.errors import ClosedError, EndpointError, ProtocolError, StorageError
from perstack_storage._core.outcomes import GivenUp
from perstack_storage._core.protocol import ClientProtocol
from perstack_storage._core.rotation import Rotation
from perstack_storage._wire.target import Target
from perstack_storage._wire.wire import RECONNECT_MAX_S, RECONNECT_MIN_S, Wire, open_wire

if TYPE_CHECKING:
    import zmq

BLOCKED_WAIT_MAX_S = 1.0
DRAIN_FRAMES_MAX = 100_000
"""More answers than are ever due at a time."""


class Transport:
    """Hands frames to the wire and takes what has arrived; a subclass decides when, and waits."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._timeout_s = target.timeout_s
        self._given_up = GivenUp(target.endpoints, target.base, target.timeout_s)
        self._rotation = Rotation(target.endpoints)
        self._protocol = ClientProtocol(os.urandom(16).hex(), target.history)
        self._stores = self._protocol.stores
        self._wire: Wire | None = None
        self._blocked = False  # the wire took no frame, or there is none at the moment
        self._received = 0  # number of frames
        self._touched = False  # the wire was used since `_has_work` said that there is none
        self._connect_at = 0.0  # not before
        self._reconnect_s = RECONNECT_MIN_S
        self._pid = os.getpid()
        self.closed = False

    def _context(self) -> "zmq.SyncContext":
        raise NotImplementedError

    def _opened(self, wire: "Wire") -> None:
        """A new wire is in use from now on."""

    def _closing(self, _wire: "Wire", /) -> None:
        """The wire is about to be closed."""

    def release(self) -> None:
        """Closes the connection of an owner that is no longer there; a forked child must not touch it.

        Not a destructor: an exception out of a signal handler is lost in those, in the middle of a call.
        """
        if self._wire is not None and os.getpid() == self._pid:
            self._wire.close()

    def _send(self, now: float) -> None:
        """Hands over every frame that may go now."""
        if self._rotation.several and now >= self._stale_at():
            self._move(now)
        wire, protocol = self._wire or self._connect(now), self._protocol
        if wire is None:
            self._blocked = True
            return
        try:
            while (frame := protocol.next_frame(now)) is not None:
                self._touched = True
                wire.send(frame)
                if not protocol.sent(now):
                    break
            if wire.unsent:
                wire.flush()
        except BlockingIOError:
            self._blocked = True
            if not wire.ready:
                self._note_wait()
        except ConnectionError:
            self._lost(now)
        else:
            self._blocked = False

    def _drain(self, now: float) -> None:
        """Takes every answer that has arrived."""
        wire, protocol = self._wire, self._protocol
        if wire is None:
            return
        self._touched = True
        try:
            for _ in range(DRAIN_FRAMES_MAX):
                protocol.receive(wire.receive(), now)
                self._received += 1
                self._reconnect_s = RECONNECT_MIN_S
                self._given_up.trouble = ""
                if protocol.problem is not None:
                    self._pass_over(protocol.problem, now)
                    return
                if not protocol.waiting:  # spares the attempt that finds nothing
                    return
        except BlockingIOError:
            return
        except ConnectionError:
            self._lost(now)
            return
        raise ProtocolError(f"{DRAIN_FRAMES_MAX} answers at once: the daemon sends more than was asked for")

    def _has_work(self) -> bool:
        """See `ZmqWire.has_work`."""
        self._touched = self._wire is not None and self._wire.has_work(self._blocked)
        return self._touched

    def _due(self, now: float) -> float:
        """When there is something to do although nothing arrives."""
        if self._blocked:
            due = self._connect_at if self._wire is None else now + BLOCKED_WAIT_MAX_S
        else:
            due = self._protocol.due()
        return min(due, self._stale_at()) if self._rotation.several else due

    def _stale_at(self) -> float:
        """When the daemon in use has had its time, where there are others."""
        return self._rotation.stale_at(self._protocol.waits_since, self._protocol.answered_at)

    def _move(self, now: float) -> None:
        """Ends the connection; where there are several daemons, the next one gets what is unanswered."""
        self._drop_wire()
        if self._rotation.several:
            self._rotation.move(now)

    def _pass_over(self, problem: EndpointError, now: float) -> None:
        """The daemon must not be used; gives all up and raises why, unless another one was met before."""
        endpoint = self._rotation.endpoint
        if not self._target.history.store:
            error = type(problem)(f"{endpoint} can't be used: {problem}")
            self._abandon_overdue(math.inf, error)
            raise error
        self._move(now)
        self._given_up.passed_over[endpoint] = str(problem)
        self._connect_later(now)
        self._blocked = True

    def _connect(self, now: float) -> "Wire | None":
        """Returns a new wire; None if nobody listens there, or it is too early to try again."""
        if self.closed:
            raise ClosedError("the client was closed during the call")
        if now < self._connect_at:
            return None
        try:
            wire = open_wire(self._rotation.endpoint, self._context, self._target.keys)
        except OSError as error:
            if error.errno is None:  # the path can't be one of a socket
                raise EndpointError(
                    f"no socket can be connected to {self._rotation.endpoint}: {error}"
                ) from error
            self._given_up.hopeless = self._target.absence.missed(error)
            if self._rotation.several:
                self._rotation.move(now)
            if not self._given_up.hopeless:  # else nobody waits: the next call tries at once
                self._connect_later(now)
                self._note_wait()
            return None
        self._given_up.hopeless = False
        self._target.absence.met()
        self._wire = wire
        self._opened(wire)
        return wire

    def _note_wait(self) -> None:
        """A call waits for a connection."""
        self._target.absence.waits()

    def _connect_later(self, now: float) -> None:
        self._connect_at = now + self._reconnect_s
        self._reconnect_s = min(self._reconnect_s * 2, RECONNECT_MAX_S)

    def _lost(self, now: float) -> None:
        """The connection has ended."""
        self._move(now)
        if self.closed:
            raise ClosedError("the client was closed during the call")
        self._connect_later(now)
        self._blocked = True

    def _drop_wire(self) -> None:
        wire = self._wire
        self._blocked = False
        if wire is not None:
            self._note_trouble()
            self._closing(wire)
            wire.close()  # before it is forgotten: an exception here leaves none open
            self._wire = None
            self._protocol.disconnected()

    def _note_trouble(self) -> None:
        """Keeps why there is no connection, for the error that names it."""
        if self._wire is not None:
            self._given_up.trouble = self._wire.trouble() or self._given_up.trouble

    def _abandon_overdue(self, through: float, error: StorageError | None = None) -> None:
        """Gives up what was called for up to the time `through`, and gives each sink the error."""
        # With the socket goes what it has not delivered yet: a store given up must not arrive later.
        self._drop_wire()
        gone: dict[int, list[Batch]] = {}
        for batch in self._protocol.abandon(through):
            gone.setdefault(id(batch.sink), []).append(batch)
        for batches in gone.values():
            if batches[0].sink is not None:
                batches[0].sink.unheard(error or self._given_up.error_of(batches))
