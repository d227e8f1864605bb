"""Records of many entries as columns: position, offset in the segment, and payload of each.

A projection takes thousands of records at once, and spends on each a fraction of what `record_places` takes.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from . import entry_format, segment_walk
from .segment_walk import Entry

# Of an entry: length, count, type, flags, position; of its first record: length, and all else as one number.
_FIRST_RECORD = struct.Struct("<8xIHBBQ40xII")
_RECORDS = int(entry_format.EntryType.RECORDS)
_START = entry_format.ENTRY_HEADER_BYTES + entry_format.RECORD_BYTES


class RecordColumns(NamedTuple):
    """Records in the order of the journal: positions, offsets of the payloads in their segment, payloads."""

    positions: list[int]
    offsets: list[int]
    payloads: list[memoryview]

    def take_entries(self, entries: Sequence[Entry], start: int, kind: int, offset_max: int) -> int:
        """Append the records of entries from index `start` on, as far as all are of one kind without flags.

        Args:
            entries: the entries, whose checksums were tested.
            start: index of the first one.
            kind: of the records.
            offset_max: the greatest offset at which an entry may end.

        Returns:
            The index of the first entry that was not taken: of another segment than the first one, of records
            of which one has another kind or flags, or of a large one; or the count of the entries.
        """
        segment = entries[start].segment if start < len(entries) else 0
        size_max = segment_walk.LARGE_BYTES
        unpack, add_position, add_offset, add = (
            _FIRST_RECORD.unpack_from,
            self.positions.append,
            self.offsets.append,
            self.payloads.append,
        )
        for number in range(start, len(entries)):
            entry_segment, offset, _, data, _ = entries[number]
            if len(data) < _START or entry_segment != segment:
                return number
            length, count, type, flags, position, size, rest = unpack(data)
            if type != _RECORDS or flags & ~entry_format.ATOMIC or offset + length > offset_max:
                return number
            if count == 1:  # as most are
                if rest != kind or _START + size != length or length > size_max:
                    return number
                add_position(position)
                add_offset(offset + _START)
                add(data[_START:])
            elif not self._take_many(entries[number], kind):
                return number
        return len(entries)

    def _take_many(self, entry: Entry, kind: int) -> bool:
        """Append the records of an entry, if all are of the kind."""
        places = entry_format.places_of_kind(entry.data, entry.header, kind)
        if places is None:
            return False
        starts, sizes = places
        offset, position, data = entry.offset, entry.header.position, entry.data
        self.positions.extend(range(position, position + len(starts)))
        self.offsets.extend([offset + start for start in starts])
        self.payloads.extend([data[start : start + size] for start, size in zip(starts, sizes, strict=True)])
        return True
