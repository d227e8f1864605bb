"""Notifications to the service manager, sd_notify(3): datagrams to the socket that it names.

Without such a socket every call does nothing. Only the serving loop feeds the watchdog, and only long work
asks for more time: a thread for either would go on while the daemon hangs.
"""

import os
import socket
import time
from collections.abc import Callable, MutableMapping

import structlog

from perstack_storage.protocol import escaped

SOCKET_VARIABLE = "NOTIFY_SOCKET"
_WATCHDOG_VARIABLES = ("WATCHDOG_USEC", "WATCHDOG_PID")
_SEND_SECONDS = 2.0
_STATUS_SECONDS = 5.0
_EXTEND_SECONDS = 120
_EXTEND_EVERY_SECONDS = 2.0
# An idle loop takes two turns a second: two turns and a lost datagram fit into a second.
_PINGS_IN_A_PERIOD = 3


_log = structlog.get_logger()


class Notifier:
    """The socket to the service manager; used by one thread."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self._ping_seconds = watchdog_seconds / _PINGS_IN_A_PERIOD
        self._next_ping = 0.0
        self._next_status = 0.0
        self._next_extension = 0.0
        self._failing = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "Notifier":
        """Open the socket named in the environment. Removes the variable: child processes must not use it."""
        address = environment.pop(SOCKET_VARIABLE, "")
        usec, pid = (environment.pop(name, "") for name in _WATCHDOG_VARIABLES)
        if address and address[0] not in "/@":
            _log.warning("notify_unusable", reason=f"{SOCKET_VARIABLE} is no Unix socket: {address}")
            address = ""
        is_own = usec.isdecimal() and pid in {"", str(os.getpid())}
        return cls(address, int(usec) / 1e6 if is_own else 0.0)

    def ready(self) -> None:
        """Report that it serves, or has reloaded."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Report a line for people."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """Report a reload; `ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """Report a stop that may take this many seconds."""
        self._send(f"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def working(self, status: str) -> None:
        """Report progress of long work. Cheap: call it at each step."""
        if self._socket is None:
            return
        now = time.monotonic()
        if now >= self._next_extension:
            self._next_extension = now + _EXTEND_EVERY_SECONDS
            self._send(f"EXTEND_TIMEOUT_USEC={_EXTEND_SECONDS * 1_000_000}\nSTATUS={_line(status)}")

    def beat(self, now: float, describe: Callable[[], str]) -> None:
        """Feed the watchdog at each turn of the serving loop, and report the status at intervals."""
        if self._socket is None:
            return
        if self._ping_seconds and now >= self._next_ping and self._send("WATCHDOG=1", wait=False):
            self._next_ping = now + self._ping_seconds
        if now >= self._next_status:
            self._next_status = now + _STATUS_SECONDS
            self._send(f"STATUS={_line(describe())}", wait=False)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, *, wait: bool = True) -> bool:
        if self._socket is None:
            return True
        self._socket.settimeout(_SEND_SECONDS if wait else 0.0)
        try:
            self._socket.sendto(message.encode(errors="backslashreplace"), self._address)
        except OSError as error:
            if not self._failing:
                _log.warning("notify_failed", reason=str(error), message=message.partition("=")[0])
            self._failing = True
            return False
        self._failing = False
        return True


def _line(text: str) -> str:
    """Make one line of any text: a line break would begin another assignment."""
    return escaped(" ".join(text.split()))
