"""Watches who connects, in a thread of its own: counts connections and handshakes that failed."""

import threading

import structlog
import zmq
from zmq.utils.monitor import parse_monitor_message

from .errors import GateFailedError

_MONITOR = "inproc://connections"
_STOP = "inproc://gate"
_FAILURES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "refused",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "protocol",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "broken",
}
_ACCEPTED, _DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)
_EVENTS = sum(_FAILURES) + _ACCEPTED + _DISCONNECTED

_log = structlog.get_logger()


class Gate:
    """Made before the router is bound; stopped after it was closed and before the context ends."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", router: "zmq.Socket[bytes]") -> None:
        self._open: set[int] = set()
        self.accepted = 0
        self.failures = dict.fromkeys(_FAILURES.values(), 0)
        self._fault: Exception | None = None
        self._monitor = context.socket(zmq.PAIR)
        # Without a bound: at one, libzmq would block the thread that serves all connections.
        self._monitor.rcvhwm = 0
        router.monitor(_MONITOR, _EVENTS)
        self._monitor.connect(_MONITOR)
        self._stop, self._stopped = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self._stopped.bind(_STOP)
        self._stop.connect(_STOP)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    def check(self) -> None:
        """See that it is at its work.

        Raises:
            GateFailedError: it is not; without it nobody knows who connects.
        """
        if self._fault is not None or not self._thread.is_alive():
            raise GateFailedError(f"the thread that watches connections ended: {self._fault!r}")

    def stop(self) -> None:
        """End it."""
        self._stop.send(b"")
        self._thread.join()
        for socket in (self._monitor, self._stop, self._stopped):
            socket.close(linger=0)

    def _run(self) -> None:
        try:
            poller = zmq.Poller()
            poller.register(self._monitor, zmq.POLLIN)
            poller.register(self._stopped, zmq.POLLIN)
            while self._stopped not in (ready := dict(poller.poll())):
                if self._monitor in ready:
                    self._note(self._monitor.recv_multipart())
        except Exception as fault:  # noqa: BLE001 - told by `check`, which the loop asks
            _log.exception("gate_failed")
            self._fault = fault

    def _note(self, frames: list[bytes]) -> None:
        event = parse_monitor_message(frames)
        kind, value = int(event["event"]), int(event["value"])
        if kind == _ACCEPTED:
            self.accepted += 1
            self._open.add(value)
        elif kind == _DISCONNECTED:
            self._open.discard(value)
        else:
            self.failures[_FAILURES[kind]] += 1
