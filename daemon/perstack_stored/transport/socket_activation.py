"""Socket activation: listening sockets that the service manager passes, sd_listen_fds(3)."""

import os
import socket
from collections.abc import MutableMapping

from perstack_stored.errors import ConfigError, start_error

from .binding import take_no_descriptors

_FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def inherited_listeners(environment: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """Inherited sockets by endpoint; none if they are for another process. Removes the variables.

    Raises:
        ConfigError: an inherited socket can't be served.
    """
    pid, count, _ = (environment.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    listeners = {}
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        try:
            listener = socket.socket(fileno=fd)
            listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise start_error(f"the socket handed over as descriptor {fd} can't be served", error) from error
        if not listening or listener.type != socket.SOCK_STREAM:
            raise ConfigError(f"the socket handed over as descriptor {fd} does not listen for streams")
        listeners[_endpoint(listener)] = listener
        take_no_descriptors(listener)
    return listeners


def _endpoint(listener: socket.socket) -> str:
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX and isinstance(address, str) and address.startswith("/"):
        return f"ipc://{address}"
    raise ConfigError(f"the socket handed over is not a Unix socket with a path, but {address!r}")
