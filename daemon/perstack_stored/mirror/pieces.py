"""Pieces of the journal, as proto/journal.md draws them: names, and their bytes. No I/O here.

A piece holds logical bytes of one segment, whether that is packed or not, compressed by itself.
"""

import re
import struct
from typing import NamedTuple

import zstandard

from perstack_stored.model.checksum import crc32c

PIECE_BYTES = 4 << 20
"""Logical bytes of a piece, at most."""
OBJECT_BYTES_MAX = PIECE_BYTES + (64 << 10)
MAGIC = b"PSTKPCE1"
_VERSION = 1
_PACKED = 1  # flag: the body is a zstd frame
_LEVEL = 3
_HEADER = struct.Struct("<8sHHI16sQQI")
_CRC = struct.Struct("<I")
_START = _HEADER.size + _CRC.size
_NAME = re.compile(r"([0-9]{10})-([0-9]{12})")
_STORE = re.compile(r"[0-9a-f]{32}")
FOLDER = ".stored/journal/"


class NotAPieceError(ValueError):
    """The bytes are no piece, or have changed. The message says why."""


class Piece(NamedTuple):
    """Bytes of a segment from `start` on, in the history `store`."""

    store: bytes
    segment: int
    start: int
    data: bytes

    @property
    def end(self) -> int:
        """Offset after the last byte."""
        return self.start + len(self.data)


def folder_of(prefix: str, store: bytes) -> str:
    """The keys of all pieces of a history begin with this."""
    return f"{prefix}{FOLDER}{store.hex()}/"


def name_of(segment: int, start: int) -> str:
    """The name of a piece in its folder. Names sort as the pieces follow each other."""
    return f"{segment:010d}-{start:012d}"


def parse_name(name: str) -> tuple[int, int] | None:
    """Segment and offset in a name; None if it is not the name of a piece."""
    found = _NAME.fullmatch(name)
    return None if found is None or int(found[1]) == 0 else (int(found[1]), int(found[2]))


def is_store(name: str) -> bool:
    """Whether the name of a folder is that of a history."""
    return _STORE.fullmatch(name) is not None


def encode(piece: Piece) -> bytes:
    """The object of a piece."""
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(piece.data)
    is_smaller = len(packed) < len(piece.data)
    header = _HEADER.pack(
        MAGIC,
        _VERSION,
        _PACKED if is_smaller else 0,
        piece.segment,
        piece.store,
        piece.start,
        len(piece.data),
        crc32c(piece.data),
    )
    return header + _CRC.pack(crc32c(header)) + (packed if is_smaller else piece.data)


def decode(data: bytes) -> Piece:
    """The piece in an object.

    Raises:
        NotAPieceError: it is none, has changed, or a newer version wrote it.
    """
    if len(data) < _START or not data.startswith(MAGIC):
        raise NotAPieceError("it does not begin as a piece does")
    _, version, flags, segment, store, start, length, crc = _HEADER.unpack_from(data)
    if crc32c(data[: _HEADER.size]) != _CRC.unpack_from(data, _HEADER.size)[0]:
        raise NotAPieceError("the checksum of its header does not match")
    if version != _VERSION or flags & ~_PACKED:
        raise NotAPieceError("a newer version of perstack-stored wrote it")
    if not 0 < length <= PIECE_BYTES:
        raise NotAPieceError(f"it can't have {length} bytes")
    body = data[_START:]
    if flags & _PACKED:
        body = _unpack(body, length)
    if len(body) != length or crc32c(body) != crc:
        raise NotAPieceError("its bytes don't match their checksum")
    return Piece(store, segment, start, body)


def _unpack(body: bytes, length: int) -> bytes:
    """Unpack a frame that states its size: no more memory is taken than that."""
    try:
        if zstandard.frame_content_size(body) != length:
            raise NotAPieceError("its frame has another size")
        return zstandard.ZstdDecompressor().decompress(body)
    except zstandard.ZstdError as error:
        raise NotAPieceError(f"it can't be unpacked: {error}") from None
