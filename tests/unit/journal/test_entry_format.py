"""Layout of the journal's bytes."""

from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.errors import NewerFormatError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import (
    EntryFields,
    EntryType,
    NotAnEntryError,
    Record,
    RecordBlock,
    SegmentHeader,
)
from perstack_stored.model.kinds import Kind

_U64 = st.integers(0, 2**64 - 1)
_RECORDS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 255), st.binary(max_size=60)), max_size=5)

GOLDEN_ENTRY = (
    "505345317f6e242a540000000200010007000000000000000068e5cf8b01000040000000000000000300000000000000"
    "8f8f8f8f8f8f8f8f8f8f8f8f8f8f8f8f020000000300000002000000010100007b7d5b5d00000000"
)
GOLDEN_SEGMENT = (
    "5053544b4a4e4c31010000000200000011111111111111111111111111111111"
    "0800000000000000e803000000000000b00000000000000078563412638493bf"
)

_FIELDS = st.builds(
    entry_format.EntryFields,
    _U64, _U64, _U64, _U64,
    st.binary(min_size=16, max_size=16),
    type=st.just(EntryType.RECORDS), flags=st.sampled_from([0, entry_format.ATOMIC]),
)  # fmt: skip


def plain_crc32c(data: bytes, start: int = 0) -> int:
    """The checksum as RFC 3720 has it, bit by bit, independent of the library."""
    crc = start ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def entry(records: list[Record], salt: int = 0x12345678, **changes: Any) -> bytes:
    fields: dict[str, Any] = {"position": 7, "time_ms": 1_700_000_000_000, "synced": 64, "seq": 3} | changes
    buffers, size = entry_format.encode_entry(
        salt, records, entry_format.EntryFields(session=b"\x8f" * 16, **fields)
    )
    data = b"".join(buffers)
    assert len(data) == size
    return data


@given(_RECORDS, st.integers(0, 2**32 - 1), _FIELDS)
def test_an_entry_comes_back_as_it_was_encoded(
    items: list[tuple[int, int, bytes]], salt: int, fields: entry_format.EntryFields
) -> None:
    """Header, table and payloads of any entry survive encoding and decoding, and its size was foretold."""
    records = [Record(*item) for item in items]
    buffers, size = entry_format.encode_entry(salt, records, fields)
    data = b"".join(buffers)
    assert len(data) == size == entry_format.entry_size(records)
    assert size % entry_format.ALIGNMENT == 0
    header = entry_format.decode_header(data)
    assert header[2:] == (len(records), EntryType.RECORDS, fields.flags, *fields[:-2])
    assert entry_format.entry_matches(data, header, salt)
    found = [
        Record(p.kind, p.flags, data[p.start : p.start + p.length])
        for p in entry_format.record_places(data, header)
    ]
    assert found == records


@given(
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    _U64,
    _U64,
    _U64,
    st.integers(0, 2**32 - 1),
)
def test_a_segment_header_comes_back_as_it_was_encoded(
    number: int, store: bytes, first: int, end: int, proven: int, salt: int
) -> None:
    """Every field of a segment header survives encoding and decoding."""
    header = SegmentHeader(number, store, first, end, proven, salt)
    assert entry_format.decode_segment_header(entry_format.encode_segment_header(header)) == header


@given(st.lists(st.tuples(st.integers(1, 9), st.binary(max_size=30)), min_size=1, max_size=5))
def test_a_block_is_encoded_as_its_records_are(items: list[tuple[int, bytes]]) -> None:
    records = [Record(kind, 0, payload) for kind, payload in items]
    payload = b"".join([payload for _, payload in items])
    sizes = tuple(len(payload) for _, payload in items)
    block = RecordBlock(bytes([kind for kind, _ in items]), sizes, memoryview(payload))
    fields = EntryFields(7, 1_796_000_000_000, 64, 3, b"s" * 16, flags=entry_format.ATOMIC)
    (wanted, size), (found, found_size) = (
        entry_format.encode_entry(5, one, fields) for one in (records, block)
    )
    assert b"".join(found) == b"".join(wanted)
    assert (found_size, entry_format.entry_size(block)) == (size, entry_format.entry_size(records))
    assert list(block) == records
    assert [block[0], *block[1:]] == records


@given(
    st.lists(st.tuples(st.integers(1, 7), st.binary(max_size=9)), max_size=4),
    st.integers(0, 99),
    st.integers(0, 255),
    st.sampled_from([*EntryType]),
)
def test_an_entry_of_values_only_is_known_without_a_look_at_each(
    items: list[tuple[int, bytes]], at: int, byte: int, type: EntryType
) -> None:
    """What would be refused, and what has a gap or a deletion, is none, whatever the table holds."""
    data = bytearray(entry([Record(kind, 0, payload) for kind, payload in items], type=type))
    header = entry_format.decode_header(memoryview(data))
    if at < entry_format.RECORD_BYTES * header.count:
        data[entry_format.ENTRY_HEADER_BYTES + at] = byte
    try:
        kinds = {place.kind for place in entry_format.record_places(memoryview(data), header)}
    except (NotAnEntryError, NewerFormatError):
        kinds = {Kind.GAP}
    expected = type == EntryType.RECORDS and not kinds & {Kind.GAP, Kind.DELETION}
    assert entry_format.are_values(memoryview(data), header) == expected


def test_the_bytes_of_an_entry_are_frozen() -> None:
    """An entry of two records has exactly these bytes for ever: older journals must stay readable."""
    assert entry([Record(3, 0, b"{}"), Record(1, 1, b"[]")]).hex() == GOLDEN_ENTRY


def test_the_bytes_of_a_segment_header_are_frozen() -> None:
    """A segment header has exactly these bytes for ever."""
    header = SegmentHeader(2, b"\x11" * 16, 8, 1000, 176, 0x12345678)
    assert entry_format.encode_segment_header(header).hex() == GOLDEN_SEGMENT


def test_the_checksums_are_plain_crc32c_continued_from_the_salt() -> None:
    """A program in any language can check an entry and a segment header with an ordinary CRC-32C."""
    golden = bytes.fromhex(GOLDEN_ENTRY)
    assert plain_crc32c(golden[8:84], 0x12345678) == int.from_bytes(golden[4:8], "little")
    segment = bytes.fromhex(GOLDEN_SEGMENT)
    assert plain_crc32c(segment[:60]) == int.from_bytes(segment[60:], "little")


def test_any_flipped_byte_of_an_entry_is_noticed() -> None:
    """Whatever byte of magic, checksum, header, table or payload changes, the entry is no longer valid."""
    good = entry([Record(3, 0, b"some payload"), Record(1, 1, b"x")])
    length = entry_format.decode_header(good).length
    for i in range(length):
        for mask in (0x01, 0x80, 0xFF):
            bad = bytearray(good)
            bad[i] ^= mask
            try:
                header = entry_format.decode_header(bytes(bad))
            except NotAnEntryError:
                continue
            assert not entry_format.entry_matches(bytes(bad), header, 0x12345678), i


def test_any_flipped_byte_of_a_segment_header_is_noticed() -> None:
    """Whatever single byte of a segment header changes, it is refused."""
    good = entry_format.encode_segment_header(SegmentHeader(2, b"\x11" * 16, 8, 1000, 176, 5))
    for i in range(len(good)):
        bad = bytearray(good)
        bad[i] ^= 0x10
        with pytest.raises(NotAnEntryError):
            entry_format.decode_segment_header(bytes(bad))


def test_an_entry_of_another_segment_is_none() -> None:
    """With another segment's salt the checksum does not match: an old entry in a reused block is none."""
    data = entry([Record(3, 0, b"x")])
    assert not entry_format.entry_matches(data, entry_format.decode_header(data), 0x12345679)


def test_the_checksum_covers_the_position() -> None:
    """Two entries that differ in their position only have different checksums."""
    one, two = entry([Record(3, 0, b"x")]), entry([Record(3, 0, b"x")], position=8)
    assert entry_format.decode_header(one).crc != entry_format.decode_header(two).crc


@pytest.mark.parametrize("length", [0, 1, 63])
def test_too_few_bytes_are_no_entry(length: int) -> None:
    """A header that is cut is refused, not misread."""
    with pytest.raises(NotAnEntryError):
        entry_format.decode_header(entry([])[:length])


def test_an_entry_that_is_cut_does_not_match() -> None:
    """An entry without its last byte is not valid."""
    data = entry([Record(3, 0, b"12345678")])
    assert not entry_format.entry_matches(data[:-1], entry_format.decode_header(data), 0x12345678)


def test_a_compressed_record_is_refused_by_name() -> None:
    """A record that a newer version compressed is not handed out as if it were plain."""
    data = bytearray(entry([Record(3, 0, b"x")]))
    data[entry_format.ENTRY_HEADER_BYTES + 6] = 1
    with pytest.raises(NewerFormatError, match="compression 1"):
        entry_format.record_places(bytes(data), entry_format.decode_header(bytes(data)))


def test_a_table_that_does_not_fill_the_entry_is_refused() -> None:
    """Lengths of records that don't add up to the entry's are an error."""
    data = bytearray(entry([Record(3, 0, b"xyz")]))
    data[entry_format.ENTRY_HEADER_BYTES] = 2
    with pytest.raises(NotAnEntryError, match="fill"):
        entry_format.record_places(bytes(data), entry_format.decode_header(bytes(data)))


def test_a_segment_of_a_newer_format_is_refused_by_name() -> None:
    """A segment of an unknown format version says so, instead of being called damaged."""
    data = bytearray(entry_format.encode_segment_header(SegmentHeader(1, bytes(16), 1, 0, 0, 0)))
    data[8] = 2
    data[60:64] = crc32c(bytes(data[:60])).to_bytes(4, "little")
    with pytest.raises(NewerFormatError, match="version 2 of"):
        entry_format.decode_segment_header(bytes(data))


@given(st.binary(max_size=200))
def test_garbage_is_never_misread(data: bytes) -> None:
    """Arbitrary bytes are refused with the one error, whatever they are."""
    for decode in (entry_format.decode_header, entry_format.decode_segment_header):
        with pytest.raises(NotAnEntryError):
            decode(data)
