"""What carries frames to the daemon: ZMTP over a Unix socket of our own, or libzmq's socket for all else."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from perstack_storage._wire.endpoint import IPC
from perstack_storage._wire.zmtp import ZmtpWire

if TYPE_CHECKING:
    import zmq

    from perstack_storage._wire.keys import CurveKeys
    from perstack_storage._wire.zmq_wire import ZmqWire

Wire: TypeAlias = "ZmtpWire | ZmqWire"
"""Both have the same methods; `ZmtpWire` says what each of them is."""
RECONNECT_MIN_S = 0.02
RECONNECT_MAX_S = 0.1


def open_wire(
    endpoint: str, context: "Callable[[], zmq.SyncContext]", keys: "CurveKeys | None" = None
) -> "Wire":
    """Connects.

    Raises:
        OSError: nobody listens there at the moment.
        EndpointError: it is no endpoint.
        ClosedError: the context has ended.
    """
    if not endpoint.startswith(IPC):
        # Imported late: most agents use a Unix socket, and many of them are processes that end soon.
        from perstack_storage._wire.zmq_wire import connect  # noqa: PLC0415

        return connect(context(), endpoint, keys)
    path = endpoint.removeprefix(IPC)
    return ZmtpWire("\0" + path[1:] if path.startswith("@") else path)
