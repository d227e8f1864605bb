"""The salt of a segment whose header is damaged, from the checksum of one of its entries."""

from collections.abc import Sequence

from perstack_stored.model.checksum import crc32c


def solve_salt(data: bytes, crc: int) -> int:
    """The start value for which the crc32c of `data` is `crc`: it is unique, as crc is linear in it."""
    zero = crc32c(data, 0)
    wanted = crc ^ zero
    rows: list[tuple[int, int]] = []  # (image of a combination of bits, the combination), by highest bit
    for bit in range(32):
        image, bits = crc32c(data, 1 << bit) ^ zero, 1 << bit
        image, bits = _reduce(rows, image, bits)
        rows.append((image, bits))
        rows.sort(reverse=True)
    rest, salt = _reduce(rows, wanted, 0)
    assert rest == 0
    return salt


def _reduce(rows: Sequence[tuple[int, int]], image: int, bits: int) -> tuple[int, int]:
    for row, combination in rows:
        if image.bit_length() == row.bit_length():
            image, bits = image ^ row, bits ^ combination
    return image, bits
