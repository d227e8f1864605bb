"""The head of a segment: its header, snapshots of sessions, guards and cursors, and epochs. Bytes only."""

from . import entry_format, session_snapshot
from .entry_format import EntryFields, EntryType, Record, SegmentHeader
from .epochs import Epochs, encode_epochs
from .sessions import Sessions


def encode_head(
    header: SegmentHeader, sessions: Sessions, epochs: Epochs, time_ms: int, kept: bytes
) -> tuple[list[entry_format.Buffer], int]:
    """Encode the head of a segment, and the entries that are kept from the end of the one before it.

    Returns:
        the buffers to write, and the offset of their end.
    """
    snapshot, size = encode_snapshots(header.salt, header.first_position, time_ms, sessions)
    first = header.first_position
    before, before_size = encode_epochs(epochs.upto(first), header.salt, time_ms)
    # Kept entries belong to the earlier epoch: a subscriber may have read them.
    later, later_size = encode_epochs(epochs.after(first), header.salt, time_ms)
    end = entry_format.SEGMENT_HEADER_BYTES + size + before_size + len(kept) + later_size
    header = header._replace(proven=end)
    return [entry_format.encode_segment_header(header), *snapshot, *before, kept, *later], end


def encode_snapshots(
    salt: int, first_position: int, time_ms: int, sessions: Sessions
) -> tuple[list[entry_format.Buffer], int]:
    """Encode the sessions; deletion guards and cursors if there are some. Returns buffers and their bytes."""
    buffers: list[entry_format.Buffer] = []
    total = 0
    for type, data in snapshots_of(sessions):
        encoded, size = entry_format.encode_entry(
            salt, [Record(0, 0, data)], EntryFields(first_position, time_ms, type=type)
        )
        buffers += encoded
        total += size
    return buffers, total


def snapshots_of(sessions: Sessions) -> list[tuple[EntryType, bytes]]:
    """The snapshots at the head of a segment, in order: type of the entry, and payload."""
    data = sessions.snapshot()
    more = [
        (EntryType.GUARDS, sessions.guards_snapshot()),
        (EntryType.CURSORS, sessions.cursors.snapshot()),
        (EntryType.WRITERS, sessions.writers.snapshot()),
        (EntryType.LOG, sessions.log_snapshot()),
    ]
    return [(session_snapshot.entry_type(data), data), *((type, data) for type, data in more if data)]
