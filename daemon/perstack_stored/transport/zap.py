"""The ZAP handler, in a thread of its own: admits CURVE clients by their keys, and counts connections.

libzmq asks it (ZAP, RFC 27) before a client with a key gets any further. A client that is not on the list, or
gets no decision, is refused. For ipc it is not asked: there, `access/peers.py` identifies each client.
"""

import struct
import threading

import structlog
import zmq
from zmq.utils import z85

from perstack_stored.access.rules import AccessRules
from perstack_stored.errors import GateFailedError
from perstack_stored.observe.log import LogThrottle

ZAP_DOMAIN = b"perstack-stored"
_ZAP = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_KEY_BYTES = 32
_ZAP_FRAMES = 9  # with the route; only libzmq asks
_REFUSED_LOGS_MAX = 1000
_MONITOR = "inproc://connections"
_STOP = "inproc://gate"
_FAILURES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "refused",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "protocol",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "broken",
}
_ACCEPTED, _DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)
_EVENTS = sum(_FAILURES) + _ACCEPTED + _DISCONNECTED
# Number and value: see zmq_socket_monitor(3). `zmq.utils.monitor` reads the same, and imports asyncio.
_EVENT = struct.Struct("=Hi")

_log = structlog.get_logger()


class ZapHandler:
    """Created before the router is bound; stopped after it is closed and before the context ends."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", router: "zmq.Socket[bytes]", rules: AccessRules
    ) -> None:
        self.rules = rules
        self._throttle = LogThrottle(_REFUSED_LOGS_MAX)
        self._asked = context.socket(zmq.ROUTER)
        self._asked.bind(_ZAP)
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
        """Count of open connections."""
        return len(self._open)

    def check(self) -> None:
        """Check that the thread runs.

        Raises:
            GateFailedError: it does not; without it clients can't be authenticated.
        """
        if self._fault is not None or not self._thread.is_alive():
            raise GateFailedError(f"the thread that watches connections ended: {self._fault!r}")

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.send(b"")
        self._thread.join()
        for socket in (self._asked, self._monitor, self._stop, self._stopped):
            socket.close(linger=0)

    def _run(self) -> None:
        try:
            poller = zmq.Poller()
            poller.register(self._monitor, zmq.POLLIN)
            poller.register(self._stopped, zmq.POLLIN)
            poller.register(self._asked, zmq.POLLIN)
            while self._stopped not in (ready := dict(poller.poll())):
                if self._monitor in ready:
                    self._note(self._monitor.recv_multipart())
                if self._asked in ready:
                    self._answer(self._asked.recv_multipart())
        except Exception as fault:  # noqa: BLE001 - reported by `check`, which the loop calls
            _log.exception("gate_failed")
            self._fault = fault

    def _answer(self, frames: list[bytes]) -> None:
        """Decide about a client; an unexpected request is refused."""
        *route, delimiter, version, request, domain, address, _, mechanism, credentials = _padded(frames)
        status, reason, user = b"400", b"refused", b""
        if (delimiter, version, domain, mechanism) == (b"", _ZAP_VERSION, ZAP_DOMAIN, b"CURVE"):
            key = z85.encode(credentials).decode() if len(credentials) == _KEY_BYTES else ""
            if self.rules.of_key(key) is not None:
                status, reason, user = b"200", b"", key.encode()
            elif self._throttle.admit(key) is not None:  # a client may connect again and again
                _log.warning("key_refused", key=key, address=address.decode(errors="replace"))
        self._asked.send_multipart([*route, b"", _ZAP_VERSION, request, status, reason, user, b""])

    def _note(self, frames: list[bytes]) -> None:
        kind, value = _EVENT.unpack(frames[0])
        if kind == _ACCEPTED:
            self.accepted += 1
            self._open.add(value)
        elif kind == _DISCONNECTED:
            self._open.discard(value)
        else:
            self.failures[_FAILURES[kind]] += 1


def _padded(frames: list[bytes]) -> list[bytes]:
    """Pad the frames of a ZAP request to the count of one with a key."""
    return frames + [b""] * (_ZAP_FRAMES - len(frames)) if len(frames) < _ZAP_FRAMES else frames[:_ZAP_FRAMES]
