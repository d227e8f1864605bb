"""ZMTP 3 for a ROUTER without security: decodes the bytes of one connection into messages. No I/O.

greeting, 64 bytes:  FF 8x00 7F | 03 minor | mechanism, 20 bytes | as-server | 31x00
frame:               flags, 1 byte | size, 1 byte, or 8 with LONG (big endian) | body
body of a command:   length of the name, 1 byte | name | data
message:             [request], or an empty frame and [request], as REQ sends it
"""

import struct
from typing import Generic, TypeVar

from perstack_storage.protocol import GREETING_BYTES, command, greeting, metadata

READ_BYTES = 65_536
"""Bytes read from a connection at a time; a larger frame is collected."""

OPENING = greeting() + command(b"READY", metadata(b"Socket-Type", b"ROUTER") + metadata(b"Identity", b""))

_MORE, _LONG, _COMMAND = 1, 2, 4
_KNOWN_FLAGS = _MORE | _LONG | _COMMAND
_LONG_HEAD = 9
_SHORT_MAX = 255
_SHORT_HEADS = tuple([bytes((0, size)) for size in range(_SHORT_MAX + 1)])
_COLLECTED_READ_BYTES = 262_144
_COMMAND_BYTES_MAX = 8192
_CONTEXT_BYTES_MAX = 16
_PEERS = frozenset({b"DEALER", b"REQ", b"ROUTER"})
_BEGINS = b"\xff"

# States: what comes next.
_GREETING, _READY, _MESSAGE, _DELIMITED, _EXCESS = range(5)

T = TypeVar("T")


class ZmtpError(Exception):
    """The peer breaks the protocol or a bound; the connection must be closed."""


class TooLargeError(ZmtpError):
    """The peer announces a frame that is larger than allowed."""


class ZmtpDecoder(Generic[T]):
    """Decodes bytes in any pieces into messages, each with one of two tags.

    Attributes:
        ready: whether the handshake is done.
        unread: a complete frame is left: feed `b""` to go on.
        outgoing: framed commands for the peer; the sender empties it.
    """

    __slots__ = (
        "_delimited", "_excess", "_frame_bytes_max", "_large", "_large_flags", "_missing", "_next", "_plain",
        "_rest", "outgoing", "ready", "unread",
    )  # fmt: skip

    def __init__(self, plain: T, delimited: T, frame_bytes_max: int) -> None:
        """Tag messages as `plain`, or `delimited` if an empty frame precedes the request."""
        self._plain = plain
        self._delimited = delimited
        self._frame_bytes_max = frame_bytes_max
        self._next = _GREETING
        self._excess = plain
        self._rest = b""
        self._large: bytearray | None = None  # grows with received bytes, not with the announced size
        self._large_flags = 0
        self._missing = 0
        self.ready = False
        self.unread = False
        self.outgoing = b""

    @property
    def wanted(self) -> int:
        """How many bytes to feed at most."""
        return READ_BYTES if self._large is None else min(self._missing, _COLLECTED_READ_BYTES)

    @property
    def partial_bytes(self) -> int:
        """Bytes that wait for the rest of their frame, without those after unread complete frames."""
        if self.unread:
            return 0
        return len(self._rest) if self._large is None else len(self._large)

    def feed(self, data: bytes, messages: list[tuple[T, bytes | None]], limit: int) -> int:
        """Decode bytes, at most `limit` frames of them, and append the complete messages.

        Appends the request, or None if the message has another shape than a request.

        Returns:
            Count of frames: each costs time, be it a message or a command.

        Raises:
            ZmtpError: the connection can't go on.
        """
        taken = 0
        if self._large is not None:
            data = self._collect(data, messages)
            taken = int(self._large is None)
        buffer = self._rest + data if self._rest else data
        start, end = 0, len(buffer)
        if self._next == _GREETING:
            start = self._greet(buffer)
            if not start:
                self._rest = buffer
                return 0
        self.unread = False
        while end - start >= 2:  # noqa: PLR2004 - flags and a short size
            flags = buffer[start]
            if flags & _LONG:
                body = start + _LONG_HEAD
                if body > end:
                    break
                stop = body + int.from_bytes(buffer[start + 1 : body])
            else:
                body = start + 2
                stop = body + buffer[start + 1]
            if stop > end:
                start = self._begin(flags, stop - body, buffer, start, body)
                break
            if taken >= limit:
                self.unread = True
                break
            taken += 1
            start = stop
            if flags & ~_LONG or self._next != _MESSAGE:
                self._take(flags, buffer[body:stop], messages)
            else:
                messages.append((self._plain, buffer[body:stop]))
        self._rest = buffer[start:]
        return taken

    def _greet(self, buffer: bytes) -> int:
        """Decode the greeting. Returns where the first frame begins; 0 while the greeting is not complete."""
        if buffer[:1] not in {b"", _BEGINS}:
            raise ZmtpError("it does not speak ZeroMQ")
        # Tested as soon as they are there: ZMTP 1 and 2 send no more before an answer.
        if len(buffer) > 9 and not buffer[9] & 1:  # noqa: PLR2004 - the signature's last byte
            raise ZmtpError("it speaks ZMTP 1, or no ZeroMQ")
        if len(buffer) > 10 and buffer[10] < 3:  # noqa: PLR2004 - the major version
            raise ZmtpError("it speaks ZMTP 2")
        if len(buffer) < GREETING_BYTES:
            return 0
        if buffer[12:32].rstrip(b"\0") != b"NULL":
            raise ZmtpError("it wants a security mechanism, and there is none on ipc")
        self._next = _READY
        return GREETING_BYTES

    def _begin(self, flags: int, size: int, buffer: bytes, start: int, body: int) -> int:
        """Begin an incomplete frame; return the offset of the bytes to keep."""
        if size > (_COMMAND_BYTES_MAX if flags & _COMMAND or not self.ready else self._frame_bytes_max):
            raise TooLargeError(f"a frame of {size} bytes")
        if size <= READ_BYTES:
            return start
        self._large = bytearray(buffer[body:])
        self._large_flags = flags
        self._missing = size - len(self._large)
        return len(buffer)

    def _collect(self, data: bytes, messages: list[tuple[T, bytes | None]]) -> bytes:
        """Add to the large frame; return the bytes after it."""
        assert self._large is not None
        piece, rest = data[: self._missing], data[self._missing :]
        self._large += piece
        self._missing -= len(piece)
        if not self._missing:
            frame, self._large = bytes(self._large), None
            self._take(self._large_flags, frame, messages)
        return rest

    def _take(self, flags: int, body: bytes, messages: list[tuple[T, bytes | None]]) -> None:
        """Handle a complete frame: assemble messages, handle commands."""
        if flags & ~_KNOWN_FLAGS:
            raise ZmtpError(f"a frame with flags {flags:#x}")
        if flags & _COMMAND:
            if flags & _MORE:
                raise ZmtpError("a command that goes on")
            self._handle_command(body)
            return
        if not self.ready:
            raise ZmtpError("a message before READY")
        if flags & _MORE:
            if self._next == _MESSAGE and not body:
                self._next = _DELIMITED
            elif self._next != _EXCESS:
                self._excess = self._delimited if self._next == _DELIMITED else self._plain
                self._next = _EXCESS
            return
        if self._next == _EXCESS:
            messages.append((self._excess, None))
        else:
            messages.append((self._delimited if self._next == _DELIMITED else self._plain, body))
        self._next = _MESSAGE

    def _handle_command(self, body: bytes) -> None:
        if len(body) > _COMMAND_BYTES_MAX:
            raise TooLargeError(f"a command of {len(body)} bytes")
        length = body[0] if body else 0
        name, data = body[1 : 1 + length], body[1 + length :]
        if not self.ready:
            if name != b"READY":
                raise ZmtpError("it does not say READY")
            if _properties(data).get(b"socket-type") not in _PEERS:
                raise ZmtpError("it is no DEALER, REQ or ROUTER")
            self.ready = True
            self._next = _MESSAGE
        elif name == b"PING":
            context = data[2:]  # after the time to live
            if len(data) < 2 or len(context) > _CONTEXT_BYTES_MAX:  # noqa: PLR2004 - of two bytes
                raise ZmtpError("a PING that is none")
            self.outgoing += command(b"PONG", context)
        elif name != b"PONG":
            raise ZmtpError("a command that is not known")


def _properties(data: bytes) -> dict[bytes, bytes]:
    """The metadata of a READY; names are case-insensitive."""
    properties = {}
    while data:
        value = 1 + data[0] + 4
        if len(data) < value:
            raise ZmtpError("metadata that is cut off")
        size = int.from_bytes(data[value - 4 : value])
        if len(data) < value + size:
            raise ZmtpError("metadata that is cut off")
        properties[data[1 : value - 4].lower()] = data[value : value + size]
        data = data[value + size :]
    return properties


def head_of(size: int, *, delimited: bool) -> bytes:
    """The bytes before an answer of this size."""
    head = _SHORT_HEADS[size] if size <= _SHORT_MAX else struct.pack(">BQ", _LONG, size)
    return b"\x01\x00" + head if delimited else head
