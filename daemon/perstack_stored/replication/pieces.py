"""Messages too large for the engine: cut into pieces of one atomic batch, and put together again. No I/O.

The engine takes all pieces of a batch or none, in a row. Still, all daemons judge alike whatever
stands there: pieces count if they follow each other, from the first to the last; any other piece is passed
over. What is incomplete does not move the place that is applied: a restart begins before its first piece.

A piece has the head of a message, with the count of pieces, then

     index u32 | 0 u32 | bytes of the whole u64 | a part of the message's bytes
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from . import message as log_message
from .message import HEAD_BYTES, MessageType
from .stream import LoggedMessage

PIECE_BYTES = (1 << 20) - 4096
"""Bytes of a message in a piece: with its head it fits into the messages that every server takes."""
PIECES_MAX = 1000
"""Pieces of a message: as many as the engine takes in one batch."""

_PIECE = struct.Struct("<IIQ")
_DATA_START = HEAD_BYTES + _PIECE.size
_TYPE_AT = 10  # of a message: most are no pieces, and need no checksum here

Sender = tuple[bytes, int]
"""A daemon's process, and the number of its message."""


class _Piece(NamedTuple):
    sender: Sender
    at: int  # among the pieces, from 0 on
    pieces: int
    size: int
    data: memoryview


def pieces_of(body: bytes, piece_bytes: int = PIECE_BYTES) -> int:
    """Count the pieces that a message needs."""
    return -(-len(body) // piece_bytes)


def split(body: bytes, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """The pieces of a message, in order."""
    head = log_message.decode_head(body)
    view, pieces = memoryview(body), pieces_of(body, piece_bytes)
    for index in range(pieces):
        part = view[index * piece_bytes : (index + 1) * piece_bytes]
        place = _PIECE.pack(index, 0, len(body))
        yield log_message.sealed(MessageType.PIECE, head.daemon, head.number, pieces, [place, part])


class Assembler:
    """Puts pieces together, of one message at a time.

    Attributes:
        dropped: messages whose pieces were incomplete, since the caller cleared it.
    """

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._bytes = 0
        self.dropped: list[Sender] = []

    def take(self, logged: LoggedMessage) -> LoggedMessage | None:
        """Take the next message of the log.

        Returns:
            what counts at its place, or None while pieces are missing. Then nothing is held.
        """
        piece = _decode(logged.body)
        if self._pieces and (piece is None or not self._follows(piece)):
            self.dropped.append(self._pieces[0].sender)
            self._clear()
        if piece is None or piece.at != len(self._pieces):
            return logged
        self._pieces.append(piece)
        self._bytes += len(piece.data)
        if piece.at + 1 < piece.pieces:
            return None
        whole = self._bytes == piece.size
        body = b"".join([one.data for one in self._pieces]) if whole else logged.body
        self._clear()
        return logged._replace(body=body)

    def _follows(self, piece: _Piece) -> bool:
        first = self._pieces[0]
        return (piece.sender, piece.pieces, piece.size) == (first.sender, first.pieces, first.size) and (
            piece.at == len(self._pieces)
        )

    def _clear(self) -> None:
        self._pieces, self._bytes = [], 0


def _decode(body: bytes) -> _Piece | None:
    """A piece; None if it is something else, or not valid."""
    if len(body) < _DATA_START or body[_TYPE_AT] != MessageType.PIECE or log_message.is_damaged(body):
        return None
    head = log_message.decode_head(body)
    if not 0 < head.count <= PIECES_MAX:
        return None
    index, _, size = _PIECE.unpack_from(body, HEAD_BYTES)
    data = memoryview(body)[_DATA_START:]
    if len(data) > PIECE_BYTES or index >= head.count:
        return None
    return _Piece((head.daemon, head.number), index, head.count, size, data)
