"""Names and bytes of pieces."""

import random
import struct

import pytest
import zstandard

from perstack_stored.mirror import pieces
from perstack_stored.mirror.pieces import NotAPieceError, Piece
from perstack_stored.model.checksum import crc32c

STORE = bytes(range(16))


@pytest.mark.parametrize("data", [b"x", b"words " * 1000, random.Random(1).randbytes(5000)])
def test_a_piece_comes_back(data: bytes) -> None:
    """Packed where that makes it smaller."""
    piece = Piece(STORE, 7, 4096, data)
    encoded = pieces.encode(piece)
    assert pieces.decode(encoded) == piece
    assert len(encoded) <= len(data) + 100


def test_names_sort_as_the_pieces_follow() -> None:
    """A name is read back; other names are none."""
    places = [(1, 0), (1, 64), (1, 4 << 20), (2, 0), (10, 99), (11, 0)]
    names = [pieces.name_of(*place) for place in places]
    assert sorted(names) == names
    assert [pieces.parse_name(name) for name in names] == places
    for name in (
        "",
        "x",
        "0000000000-000000000000",
        names[0] + "0",
        names[0][:-1],
        "\u0660" * 10 + "-" + "0" * 12,
    ):
        assert pieces.parse_name(name) is None


def test_a_flipped_bit_is_found_or_harmless() -> None:
    """In the header, and in the body. zstd does not look at some bits: then the bytes are the right ones."""
    piece = Piece(STORE, 7, 4096, b"some words, some words, some words " * 20)
    encoded = bytearray(pieces.encode(piece))
    harmless = 0
    for place in range(len(encoded)):
        encoded[place] ^= 1 << place % 8
        try:
            assert pieces.decode(bytes(encoded)) == piece
            harmless += 1
        except NotAPieceError:
            pass
        encoded[place] ^= 1 << place % 8
    assert harmless < 5


def test_a_hostile_piece_takes_no_memory() -> None:
    """A frame that unpacks to more than the header says, or says more itself, is refused unopened."""
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(64 << 20))
    for length in (100, pieces.PIECE_BYTES, pieces.PIECE_BYTES + 1, 1 << 60):
        header = struct.pack("<8sHHI16sQQI", pieces.MAGIC, 1, 1, 1, STORE, 0, length, 0)
        with pytest.raises(NotAPieceError):
            pieces.decode(header + struct.pack("<I", crc32c(header)) + bomb)
    for cut in range(57):
        with pytest.raises(NotAPieceError):
            pieces.decode(pieces.encode(Piece(STORE, 1, 0, b"x"))[:cut])
