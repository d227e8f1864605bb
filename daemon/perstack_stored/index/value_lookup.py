"""Reads values by the addresses in index rows, and decides whether a mismatch is of index or journal.

The journal's entries have checksums of their own. Where they match, and the row still does not, the row has
changed: the index is damaged, not the journal.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import IndexUnusableError, Refusal
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.model.checksum import crc32c

_GAP_BYTES_MAX = 4096
PIECE_BYTES = 1 << 19


class ValueAddress(NamedTuple):
    """Address of a value in the journal: segment, offset, length in bytes, and checksum."""

    segment: int
    offset: int
    length: int
    crc: int


def read_value(reader: JournalReader, place: ValueAddress, indexed: Callable[[], LogPosition]) -> bytes:
    """Read one value, checked against the index; `indexed` returns the index's cursor.

    Raises:
        Refusal: DAMAGED, or READ_GONE: it was erased.
        IndexUnusableError: the row has changed.
    """
    try:
        payload = reader.payload(place.segment, place.offset, place.length)
        if crc32c(payload) != place.crc:
            raise _MismatchError(place)
    except Exception as error:
        _find_fault(reader, error, [place], indexed())
        raise
    return payload


def pieces_at(
    reader: JournalReader, place: ValueAddress, indexed: Callable[[], LogPosition]
) -> Iterator[bytes]:
    """Read one value in pieces, each on demand: memory holds one piece, for a value of any size.

    A value of several pieces is checked as it is read. If it does not match, the last piece never comes.

    Raises:
        Refusal: DAMAGED, or READ_GONE: it was erased.
        IndexUnusableError: the row has changed.
    """
    if not is_large(place):
        yield read_value(reader, place, indexed)
        return
    try:
        crc = 0
        for start in range(0, place.length, PIECE_BYTES):
            size = min(PIECE_BYTES, place.length - start)
            piece = reader.payload(place.segment, place.offset + start, size)
            is_last = start + size == place.length
            if len(piece) != size or (is_last and crc32c(piece, crc) != place.crc):
                raise _MismatchError(place)
            crc = crc32c(piece, crc)
            yield piece
    except Exception as error:
        _find_fault(reader, error, [place], indexed())
        raise


def is_large(place: ValueAddress) -> bool:
    """Whether a value is read in pieces."""
    length: object = place.length  # as stored in the row, which may have changed
    return isinstance(length, int) and length > PIECE_BYTES


Values = list[memoryview] | Iterator[bytes | memoryview]
"""Some small values, or the pieces of a large one, which must be consumed before the next values."""


def values_at(
    reader: JournalReader, rows: list[list[Any]], indexed: Callable[[], LogPosition]
) -> Iterator[Values]:
    """Read the values of rows that begin with an address; adjacent values are read at once.

    The interpreter's lock is released with each block, so a long listing does not delay the serving loop.

    Raises:
        Refusal: DAMAGED.
        IndexUnusableError: a row has changed.
    """
    places: list[ValueAddress] = []
    size = 0
    try:
        for row in rows:
            place = ValueAddress(*row[:4])
            if places and size + place.length > PIECE_BYTES:
                yield _read_at(reader, places)
                places, size = [], 0
            if is_large(place):
                yield pieces_at(reader, place, indexed)
                continue
            places.append(place)
            size += place.length
        if places:
            yield _read_at(reader, places)
    except Exception as error:
        _find_fault(reader, error, rows, indexed())
        raise


class _MismatchError(Exception):
    """The bytes at an address do not match the index's checksum."""

    def __init__(self, place: ValueAddress) -> None:
        super().__init__()
        self.place = place


def _read_at(reader: JournalReader, places: list[ValueAddress]) -> list[memoryview]:
    """Read the values of a portion that fits in memory; newest first means backwards in the journal."""
    payloads = [memoryview(b"")] * len(places)
    order = sorted(range(len(places)), key=places.__getitem__)
    i = 0
    while i < len(order):
        segment, start, length, _ = places[order[i]]
        end = start + length
        j = i + 1
        while j < len(order):
            following, offset, length, _ = places[order[j]]
            if following != segment or not 0 <= offset - end <= _GAP_BYTES_MAX:
                break
            end = offset + length
            j += 1
        block = memoryview(reader.payload(segment, start, end - start))
        for k in order[i:j]:
            _, offset, length, crc = place = places[k]
            payload = block[offset - start : offset - start + length]
            if len(payload) != length or crc32c(payload) != crc:
                raise _MismatchError(place)
            payloads[k] = payload
        i = j
    return payloads


def _find_fault(
    reader: JournalReader, error: Exception, rows: Sequence[Sequence[Any]], until: LogPosition
) -> None:
    """Raise a more precise error where one came from reading an address of a row."""
    # A changed row may hold anything: no number, no segment, no end of it.
    for row in rows:
        segment, offset, length = row[:3]
        if not reader.has(segment, offset, length, until):
            raise _index_fault(segment, offset) from error
    if not isinstance(error, _MismatchError):
        return
    segment, offset, _, _ = error.place
    if reader.is_erased(segment, offset, until):
        raise Refusal(ErrorCode.READ_GONE, "it was deleted while it was read") from None
    if reader.is_sound(segment, offset, until):
        raise _index_fault(segment, offset) from error
    raise Refusal(
        ErrorCode.DAMAGED,
        f"the record at offset {offset} of journal segment {segment_name(segment)}"
        " does not match its checksum",
    ) from None


def _index_fault(segment: object, offset: object) -> IndexUnusableError:
    return IndexUnusableError(
        f"a row of the index names another record than it should: segment {segment}, offset {offset}"
    )
