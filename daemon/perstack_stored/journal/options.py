"""How a journal is begun and written."""

from typing import NamedTuple


class History(NamedTuple):
    """A history that journals on many machines share: all give the same positions and epochs.

    Attributes:
        store: id of the store, 16 bytes.
        stream: id of the log that orders it, 16 bytes.
    """

    store: bytes
    stream: bytes


class JournalOptions(NamedTuple):
    """How segments are preallocated, and whose history they hold.

    Attributes:
        segment_bytes: size of a segment that is filled with zeros ahead of its use.
        first_segment_bytes: the same for the segment of the start, when no client can be served yet.
        ahead: prepare the next segment in a thread, before it is needed.
        history: the history that the journal shares with others; else it begins its own.
    """

    segment_bytes: int
    first_segment_bytes: int
    ahead: bool = True
    history: History | None = None
