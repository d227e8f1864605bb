"""The head of a segment: its header, the snapshot of the sessions, and the epochs. Bytes only."""

from . import entry_format, session_snapshot
from .entry_format import EntryFields, Record, SegmentHeader
from .epochs import Epochs, encode_epochs


def encode_head(
    header: SegmentHeader, sessions: bytes, epochs: Epochs, time_ms: int, kept: bytes
) -> tuple[list[entry_format.Buffer], int]:
    """Encode the head of a segment, and the entries that are kept from the end of the one before it.

    Returns:
        the buffers to write, and the offset of their end.
    """
    snapshot, size = entry_format.encode_entry(
        header.salt,
        [Record(0, 0, sessions)],
        EntryFields(header.first_position, time_ms, type=session_snapshot.entry_type(sessions)),
    )
    first = header.first_position
    before, before_size = encode_epochs(epochs.upto(first), header.salt, time_ms)
    # Kept entries belong to the earlier epoch: a subscriber may have read them.
    later, later_size = encode_epochs(epochs.after(first), header.salt, time_ms)
    end = entry_format.SEGMENT_HEADER_BYTES + size + before_size + len(kept) + later_size
    header = header._replace(proven=end)
    return [entry_format.encode_segment_header(header), *snapshot, *before, kept, *later], end
