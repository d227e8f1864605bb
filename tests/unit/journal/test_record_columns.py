"""Columns of records hold what `record_places` finds, and leave to it what is no plain record of the kind."""

from random import Random

import pytest
from crc32c import crc32c

from perstack_stored.errors import NewerFormatError
from perstack_stored.journal import entry_format, segment_walk
from perstack_stored.journal.entry_format import ATOMIC, EntryFields, EntryType, Record
from perstack_stored.journal.record_columns import RecordColumns
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model.kinds import Kind

EVENT = int(Kind.EVENT)
FAR = 1 << 40


def event(payload: bytes, flags: int = 0) -> Record:
    return Record(EVENT, flags, payload)


def entry_of(
    records: list[Record], position: int = 1, *, offset: int = 64, segment: int = 3, flags: int = 0
) -> Entry:
    """An entry as a reader returns it: without padding."""
    buffers, _ = entry_format.encode_entry(1, records, EntryFields(position, 7, flags=flags))
    data = b"".join(buffers)
    header = entry_format.decode_header(data)
    return Entry(segment, offset, header, memoryview(data)[: header.length])


def entries_of(sizes: list[int], seed: int = 0) -> list[Entry]:
    """Entries with this many events each, one after the other."""
    random = Random(seed)
    entries, position, offset = [], 1, 64
    for count in sizes:
        records = [event(random.randbytes(random.randrange(90))) for _ in range(count)]
        flags = ATOMIC if random.random() < 0.3 else 0
        entries.append(entry_of(records, position, offset=offset, flags=flags))
        position += count
        offset += entry_format.entry_size(records)
    return entries


def taken(entries: list[Entry], start: int = 0, offset_max: int = FAR) -> tuple[RecordColumns, int]:
    columns = RecordColumns([], [], [])
    return columns, columns.take_entries(entries, start, EVENT, offset_max)


@pytest.mark.parametrize("seed", range(5))
def test_columns_hold_each_record(seed: int) -> None:
    """In entries of one record and of many, from any of them on."""
    random = Random(seed)
    entries = entries_of([random.choice((1, 1, 2, 50)) for _ in range(20)], seed)
    start = random.randrange(10)
    columns, reached = taken(entries, start)
    assert reached == len(entries)
    wanted = [
        (position, entry.offset + place.start, entry.data[place.start : place.start + place.length])
        for entry in entries[start:]
        for position, place in enumerate(
            entry_format.record_places(entry.data, entry.header), entry.header.position
        )
    ]
    assert list(zip(*columns, strict=True)) == wanted


def other_type() -> Entry:
    fields = EntryFields(2, 7, type=EntryType.MARK)
    data = b"".join(entry_format.encode_entry(1, [Record(EVENT, 0, b"x" * 40)], fields)[0])
    header = entry_format.decode_header(data)
    return Entry(3, 64, header, memoryview(data)[: header.length])


def longer_than_its_record() -> Entry:
    """An entry with a valid checksum, whose table does not fill it."""
    data = bytearray(entry_of([event(b"abcdefgh")]).data)
    data[64:68] = (7).to_bytes(4, "little")
    header = entry_format.decode_header(bytes(data))._replace(crc=crc32c(bytes(data[8:]), 1))
    return Entry(3, 64, header, memoryview(bytes(data)))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(entry_of([Record(int(Kind.JOB), 0, b"{}")]), id="another kind"),
        pytest.param(entry_of([event(b"{}"), Record(int(Kind.JOB), 0, b"{}")]), id="another kind beside"),
        pytest.param(entry_of([event(b"{}", 1)]), id="flags"),
        pytest.param(entry_of([event(b"{}"), event(b"{}", 2)]), id="flags beside"),
        pytest.param(entry_of([event(b"{}")], segment=4), id="another segment"),
        pytest.param(entry_of([event(b"x" * (segment_walk.LARGE_BYTES + 1))]), id="large"),
        pytest.param(entry_of([event(b"{}")], offset=FAR - 70), id="too far"),
        pytest.param(entry_of([event(b"{}")] * 2, offset=FAR - 70), id="two too far"),
        pytest.param(entry_of([]), id="empty"),
        pytest.param(other_type(), id="another type"),
        pytest.param(longer_than_its_record(), id="not filled"),
    ],
)
def test_what_is_no_plain_record_is_left(other: Entry) -> None:
    """Those before it are taken, and none of its own."""
    before = entries_of([1, 2])
    columns, reached = taken([*before, other, *before])
    assert (reached, columns.positions) == (2, [1, 2, 3])
    assert taken([*before, other], 2)[1] == (2 if other.segment == 3 else 3)


@pytest.mark.parametrize("count", [1, 3])
def test_an_entry_of_a_newer_version_is_left_to_be_refused(count: int) -> None:
    """A record with a compression that is not known, and an entry with a flag that is not."""
    entry = entry_of([event(b"{}")] * count)
    data = bytearray(entry.data)
    data[64 + 8 * count - 2] = 9
    newer = [entry._replace(data=memoryview(bytes(data))), entry_of([event(b"{}")] * count, flags=2)]
    for one in newer:
        assert taken([one])[1] == 0
        with pytest.raises(NewerFormatError):
            entry_format.record_places(one.data, one.header)


def test_nothing_is_taken_of_nothing() -> None:
    """At the end of the entries."""
    assert taken([])[1] == 0
    assert taken(entries_of([1]), 1)[1] == 1
