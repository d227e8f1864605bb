"""What carries frames to the daemon: ZMTP over a Unix socket of our own, or libzmq's socket for all else."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from perstack_storage._wire.endpoint import IPC
from perstack_storage._wire.zmtp import ZmtpWire

if TYPE_CHECKING:
    import zmq

    from perstack_storage._wire.keys import CurveKeys

RECONNECT_MIN_S = 0.02
RECONNECT_MAX_S = 0.1


class Wire(Protocol):
    """See `ZmtpWire`, which says what each of these is."""

    fd: int
    unsent: bool

    def send(self, frame: bytes) -> None:
        """Takes a frame, or raises BlockingIOError."""

    def flush(self) -> None:
        """Sends what is left of the frames taken, or raises BlockingIOError."""

    def receive(self) -> bytes:
        """Returns a frame that has arrived, or raises BlockingIOError."""

    def wait(self, seconds: float, blocked: bool, /) -> bool:
        """Waits for something to take, or where `blocked`, to send."""

    def has_work(self, blocked: bool, /) -> bool:
        """Whether there is something to take, or to send, that the descriptor might not show."""

    def interrupt(self) -> None:
        """Ends a wait in another thread."""

    def trouble(self) -> str:
        """Why there is no connection, where that is known and waiting won't help."""

    def close(self) -> None:
        """Closes it."""


def open_wire(
    endpoint: str, context: "Callable[[], zmq.SyncContext]", keys: "CurveKeys | None" = None
) -> Wire:
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
