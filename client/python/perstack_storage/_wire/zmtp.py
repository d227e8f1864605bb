"""ZMTP over a Unix socket, as libzmq's DEALER speaks it to the daemon's ROUTER, without libzmq's thread.

A frame that libzmq carries wakes its thread on the way out, and this thread's and the caller's on the way
back: half of what a store costs its process. Here a store is one system call to send and one to wait. What
is more, the end of a connection is noticed when it comes, not by the silence after it.
"""

import contextlib
import socket
import struct

from perstack_storage._core.errors import ProtocolError
from perstack_storage._core.zmtp_frames import COMMAND, GREETING_BYTES, LONG, command, greeting, metadata
from perstack_storage._wire.readiness import READABLE, WRITABLE, is_cooperative, wait_ready

BUFFER_BYTES = 65_536
FRAME_BYTES_MAX = 1 << 28
"""No answer is larger: the daemon cuts them into parts of some 512 KiB."""
LARGE_STEP_BYTES = 1 << 22
"""A large frame gets memory as it arrives, not as it is announced."""
WAIT_SLICE_S = 0.25
"""A longer wait is made of receptions that the kernel ends after so long; it takes no call beside them."""

_SHORT_MAX = 255
_JOIN_MAX = 16_384  # up to here a copy is cheaper than a call with two buffers
_NOWAIT = socket.MSG_DONTWAIT
_SEND = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


_OPENING = greeting() + command(b"READY", metadata(b"Socket-Type", b"DEALER") + metadata(b"Identity", b""))


class ZmtpWire:
    """One connection to a Unix socket. It takes frames when the other side has said that it is ready.

    Attributes:
        fd: its descriptor; readable when something has arrived.
        unsent: whether part of a frame waits until the descriptor is writable.
        ready: whether the connection is finished.
    """

    def __init__(self, path: str) -> None:
        """Connects.

        Raises:
            OSError: nobody listens there, or it can't be reached.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)  # a full backlog must not block
            self._socket.connect(path)
            self._cooperative = is_cooperative()
            # A green socket that may block waits without end, whatever the timeout of the real one is.
            self._socket.setblocking(not self._cooperative)
            timeout = struct.pack("ll", 0, int(WAIT_SLICE_S * 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            self._socket.send(_OPENING, _SEND)
        except BaseException:
            self._socket.close()
            raise
        self.fd = self._socket.fileno()
        self.ready = False
        self.unsent = False
        self._greeted = False
        self._ended = False
        self._rest = memoryview(b"")
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0  # of what has arrived and was not taken
        self._large: bytearray | None = None  # a frame that the buffer is too small for
        self._large_size = self._large_end = 0

    def send(self, frame: bytes) -> None:
        """Takes a frame; what the kernel has no room for yet, `flush` sends.

        Raises:
            BlockingIOError: it was not taken.
            ConnectionError: the connection is gone.
        """
        if not self.ready:
            raise BlockingIOError
        if self.unsent:
            self.flush()
        size = len(frame)
        head = bytes((0, size)) if size <= _SHORT_MAX else struct.pack(">BQ", LONG, size)
        if size <= _JOIN_MAX:
            self._hand_over(head + frame)
            return
        try:
            sent = self._socket.sendmsg((head, frame), (), _SEND)
        except BlockingIOError:
            sent = 0
        if sent < len(head):
            self._keep(memoryview(head + frame)[sent:])
        elif sent < len(head) + size:
            self._keep(memoryview(frame)[sent - len(head) :])

    def flush(self) -> None:
        """Sends what is left.

        Raises:
            BlockingIOError: some of it is still left.
            ConnectionError: the connection is gone.
        """
        if self.unsent:
            self._rest = self._rest[self._socket.send(self._rest, _SEND) :]
            if self._rest:
                raise BlockingIOError
            self.unsent = False

    def _hand_over(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data, _SEND)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._keep(memoryview(data)[sent:])

    def _keep(self, rest: memoryview) -> None:
        self._rest = rest
        self.unsent = True

    def receive(self) -> bytes:
        """Returns the next frame that has arrived.

        Raises:
            BlockingIOError: there is none.
            ConnectionError: the connection is gone.
            ProtocolError: the other side does not speak ZMTP 3 without security.
        """
        while True:
            frame = self._next()
            if frame is not None:
                return frame
            if self._ended:
                raise ConnectionResetError
            self._fill(_NOWAIT)

    def wait(self, seconds: float, _blocked: bool, /) -> bool:
        """Waits until something arrives, or can be sent where that is wanted; may end early.

        Returns:
            Whether there is something to take, or room for what is unsent.
        """
        if seconds >= WAIT_SLICE_S and not self.unsent and not self._cooperative:
            try:
                self._fill(0)
            except BlockingIOError:
                return False
            except ConnectionError:
                self._ended = True
            return True
        return wait_ready(self.fd, READABLE | WRITABLE if self.unsent else READABLE, seconds)

    def has_work(self, _blocked: bool, /) -> bool:
        """Returns False: unlike libzmq's, this descriptor stays readable until all was taken."""
        return False

    def interrupt(self) -> None:
        """Ends a wait in another thread, and the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def trouble(self) -> str:
        """Returns nothing: the system, or an answer, refuses a client."""
        return ""

    def close(self) -> None:
        """Closes the connection; what is unsent is not sent."""
        self._socket.close()

    def _fill(self, flags: int) -> None:
        if self._large is not None:
            if self._large_end == len(self._large):
                self._large += bytes(
                    min(max(LARGE_STEP_BYTES, self._large_end), self._large_size - self._large_end)
                )
            with memoryview(self._large) as view:
                got = self._socket.recv_into(view[self._large_end :], 0, flags)
            self._large_end += got
        else:
            if self._start == self._end:
                self._start = self._end = 0
            elif self._end == BUFFER_BYTES:
                rest = bytes(self._buffer[self._start : self._end])
                self._start, self._end = 0, len(rest)
                self._buffer[: self._end] = rest
            got = self._socket.recv_into(self._buffer[self._end :], 0, flags)
            self._end += got
        if not got:
            raise ConnectionResetError

    def _next(self) -> bytes | None:
        """The next complete message frame; commands on the way are followed."""
        while True:
            if self._large is not None:
                if self._large_end < self._large_size:
                    return None
                frame, self._large = bytes(self._large), None
                return frame
            if not self._greeted and not self._take_greeting():
                return None
            start, available = self._start, self._end - self._start
            if available < 2:  # noqa: PLR2004 - flags and a short size
                return None
            flags, size, head = self._buffer[start], self._buffer[start + 1], 2
            if flags & LONG:
                head = 9
                if available < head:
                    return None
                (size,) = struct.unpack_from(">Q", self._buffer, start + 1)
            if available < head + size:
                if head + size > BUFFER_BYTES:
                    self._begin_large(start + head, size)
                    continue
                return None
            self._start = start + head + size
            frame = bytes(self._buffer[start + head : self._start])
            if not flags & COMMAND:
                return frame
            self._follow(frame)

    def _begin_large(self, start: int, size: int) -> None:
        if size > FRAME_BYTES_MAX:
            raise ProtocolError(f"a frame of {size} bytes: another program listens there")
        self._large_size = size
        self._large = bytearray(self._buffer[start : self._end])
        self._large_end = self._end - start
        self._start = self._end = 0

    def _take_greeting(self) -> bool:
        seen = bytes(self._buffer[: min(self._end, GREETING_BYTES)])
        if seen[:1] not in {b"", b"\xff"}:
            raise ProtocolError("what listens there does not speak ZeroMQ")
        if len(seen) < GREETING_BYTES:
            return False
        version, mechanism = seen[10], seen[12:32].rstrip(b"\0")
        if not seen[9] & 1 or version < 3 or mechanism != b"NULL":  # noqa: PLR2004 - ZMTP's version
            raise ProtocolError(f"what listens there speaks ZMTP {version} with mechanism {mechanism!r}")
        self._greeted = True
        self._start = GREETING_BYTES
        return True

    def _follow(self, body: bytes) -> None:
        name, data = body[1 : 1 + body[0]], body[1 + body[0] :]
        if name == b"READY":
            self.ready = True
        elif name == b"ERROR":
            raise ConnectionRefusedError(data[1:].decode(errors="replace"))
        elif name == b"PING" and not self.unsent:  # time to live, then what the answer must bring back
            self._hand_over(command(b"PONG", data[2:]))
