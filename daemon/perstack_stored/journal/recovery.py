"""Recovery: classifies the end of the journal after a stop as proven, kept, torn or damaged.

Every entry says up to which offset its segment was synced when it was written. Up to the highest such
offset the bytes are proven to have been on disk: a bad entry there is damage, and the start fails. The
bytes after it may be torn, since the pages of an unsynced batch reach the disk in any order. Their valid
beginning is kept, but written again into a new segment, because bytes that read well may stand in the page
cache only. Nothing is ever erased.
"""

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import DamageError, LostEndError
from perstack_stored.model import deletions
from perstack_stored.model.kinds import Kind
from perstack_stored.progress import Working, no_progress

from . import entry_format
from .chain import Chain
from .deletion_guards import Guard
from .entry_format import EntryType, Record, SegmentHeader
from .epochs import Epochs
from .log_place import NO_STREAM
from .segment_names import segment_name
from .segment_walk import BadEntryError, Entry, SegmentFile, find_entry, walk
from .sessions import Sessions

_WITH_MESSAGES = frozenset({int(EntryType.RECORDS), int(EntryType.CURSORS)})


class Kept(NamedTuple):
    """A valid entry after the proven offset."""

    position: int
    time_ms: int
    seq: int
    session: bytes
    records: list[Record]
    flags: int


class Recovered(NamedTuple):
    """Where the journal ends. `end` and `proven_end` are offsets in segment `number`, 0 if there is none."""

    store: bytes | None
    number: int
    proven_end: int
    proven_position: int
    position: int
    time_ms: int
    end: int
    kept: list[Kept]
    torn_bytes: int
    resume: SegmentHeader | None
    ends: dict[int, int]  # logical ends of the segments before the last one
    epochs: Epochs

    def kept_entries(self, salt: int) -> bytes:
        """The kept entries, encoded for the head of another segment."""
        pieces: list[bytes | bytearray | memoryview] = []
        for entry in self.kept:
            buffers, _ = entry_format.encode_entry(
                salt,
                entry.records,
                entry_format.EntryFields(
                    entry.position, entry.time_ms, 0, entry.seq, entry.session, flags=entry.flags
                ),
            )
            pieces += buffers
        return b"".join(pieces)


def recover(files: FileSystem, dir_fd: int, sessions: Sessions, working: Working = no_progress) -> Recovered:
    """Read the last segment, fill the sessions, and return where and how to go on. Writes nothing.

    Raises:
        DamageError: bytes that were proven to be on disk have changed.
    """
    chain = Chain(files, dir_fd)
    if not chain.last:
        return Recovered(None, 0, 0, 0, 0, 0, 0, [], 0, None, {}, Epochs())
    try:
        return _recover_last(chain, sessions, working)
    finally:
        chain.close()


def _recover_last(chain: Chain, sessions: Sessions, working: Working) -> Recovered:
    header = chain.headers[chain.last]
    segment = chain.file(header.number)
    size = segment.file.size()
    proven = header.proven
    position = header.first_position - 1
    time_ms = 0
    end = entry_format.SEGMENT_HEADER_BYTES
    # (end offset, position, candidate to keep) of each entry that may lie after the proven offset
    unproven: list[tuple[int, int, Entry]] = []
    clean = False
    epochs = Epochs()
    # Entries of a message of a replicated log that is not complete yet, and the position before them.
    message: list[Entry] = []
    before_message = position
    torn_at: int | None = None
    torn = 0
    is_recycled = bool(header.flags & entry_format.SEGMENT_RECYCLED)
    try:
        for entry in walk(segment, end, size):
            working("reading the end of the journal")
            _follow(entry, position, header)
            if entry.header.synced > proven:
                proven = entry.header.synced
                unproven = [item for item in unproven if item[0] > proven]
            position = max(position, entry.header.position + entry.header.count - 1)
            # A replicated log's time never goes back; what was kept from the segment before is older.
            least_ms = 0 if sessions.log.stream == NO_STREAM else time_ms
            time_ms = max(least_ms, entry.header.time_ms)
            end = entry.offset + entry_format.padded(entry.header.length)
            # Marks at the head of a segment list epochs; they are no sign of a clean stop.
            clean = entry.header.type == EntryType.MARK and entry.header.synced == entry.offset
            _replay_with_message(entry, message, sessions)
            if not message:
                before_message = position
            epochs.apply(entry.header)
            unproven.append((end, position, entry._replace(data=_own(entry, proven))))
    except BadEntryError as error:
        end = torn_at = error.offset
        torn = _judge(segment, header, error, Limits(size, proven, position))
    if end < proven:
        raise DamageError(
            segment_name(header.number), end, position + 1, "the segment is shorter than it was"
        )
    if message:
        # It is applied again, whole: judged by halves, its stores could come to something else here.
        position, proven = before_message, min(proven, message[0].offset)
        unproven = [item for item in unproven if item[2].offset < message[0].offset]
    kept = [
        _keep(item[2]) for item in unproven if item[0] > proven and item[2].header.type == EntryType.RECORDS
    ]
    if torn_at is not None and not is_recycled:
        torn = _torn_bytes(segment, torn_at, size)
    goes_on = clean and not kept and not message and not torn and not segment.file.is_packed
    if is_recycled:
        # Bytes after the end may be old, or torn: nothing is written over them.
        goes_on &= size == end
    resume = header if goes_on else None
    sessions.cursors.bound(position)
    ends = {number: end_of for number in chain.headers if (end_of := chain.end_of(number)) is not None}
    first_kept = kept[0].position if kept else position + 1
    return Recovered(
        header.store,
        header.number,
        proven,
        first_kept - 1,
        position,
        time_ms,
        end,
        kept,
        torn,
        resume,
        ends,
        epochs,
    )


def _replay_with_message(entry: Entry, message: list[Entry], sessions: Sessions) -> None:
    """Replay an entry, or collect it until its message of a replicated log is complete."""
    if sessions.log.stream != NO_STREAM and entry.header.type in _WITH_MESSAGES:
        # What was kept from the segment before is in the snapshot: replayed again, its sessions were newer.
        if entry.header.position > sessions.log.position:
            message.append(entry._replace(data=memoryview(bytes(entry.data))))
        return
    if entry.header.type == EntryType.LOG:
        sessions.begin_message(entry.data[entry_format.ENTRY_HEADER_BYTES :])
    for one in message:
        replay_entry(one, sessions)
    message.clear()
    replay_entry(entry, sessions)


def _own(entry: Entry, proven: int) -> memoryview:
    """Copy an entry that may be kept: it must not hold the walk's large buffer."""
    return memoryview(bytes(entry.data)) if entry.offset >= proven else memoryview(b"")


def _follow(entry: Entry, position: int, segment: SegmentHeader) -> None:
    """Check that an entry stands at the next position."""
    found = entry.header
    if found.type == EntryType.RECORDS and found.position != position + 1:
        raise DamageError(
            segment_name(segment.number),
            entry.offset,
            position + 1,
            f"position {found.position} stands there",
        )


def _replay_state(entry: Entry, sessions: Sessions) -> bool:
    """Apply an entry without records; returns whether it is one."""
    data = entry.data[entry_format.ENTRY_HEADER_BYTES :]
    if entry.header.type in entry_format.SNAPSHOTS:
        sessions.restore(data)
    elif entry.header.type == EntryType.GUARDS:
        sessions.restore_guards(data)
    elif entry.header.type == EntryType.CURSORS:
        sessions.cursors.replay(data)
    elif entry.header.type == EntryType.WRITERS:
        sessions.writers.restore(data)
    elif entry.header.type == EntryType.LOG:
        sessions.replay_log(data, entry.header.time_ms)
    else:
        return False
    return True


def replay_entry(entry: Entry, sessions: Sessions) -> None:
    """Apply an entry to the sessions. Lost records keep no position, and their retry is not stored again."""
    if _replay_state(entry, sessions):
        return
    found = entry.header
    if not sessions.writers.active and entry_format.are_values(entry.data, found):
        if found.session != entry_format.NO_SESSION:
            sessions.replay(found.session, found.seq, found.position, found.count, found.time_ms)
        return
    places = entry_format.record_places(entry.data, found)  # refuses records of a newer format
    for number, place in enumerate(places):
        if place.kind == Kind.DELETION:
            deletion = deletions.decode(entry.data[place.start : place.start + place.length])
            if deletion.is_redaction:
                continue
            guard = Guard(found.position + number, found.time_ms)
            sessions.guards.put((deletion.jobId, deletion.runId or ""), guard)
    if found.type == EntryType.RECORDS and sessions.writers.active:
        sessions.writers.replay(found, entry.data, places)
    if found.type != EntryType.RECORDS or found.session == entry_format.NO_SESSION:
        return
    seq, position = found.seq, found.position
    for is_lost, group in groupby(places, lambda place: place.kind == Kind.GAP):
        count = len(list(group))
        if is_lost:
            sessions.pass_over(found.session, seq + count - 1, found.time_ms)
        else:
            sessions.replay(found.session, seq, position, count, found.time_ms)
        seq, position = seq + count, position + count


class Limits(NamedTuple):
    """What is known of a segment at its first bad place.

    Attributes:
        size: bytes of its file.
        proven: offset up to which it is synced, as proved by the entries before the bad place.
        position: of the last record before the bad place.
    """

    size: int
    proven: int
    position: int


def _judge(segment: SegmentFile, header: SegmentHeader, error: BadEntryError, limits: Limits) -> int:
    """Decide whether a bad place is a torn tail or damage.

    Returns:
        bytes from the bad place to the end of the last valid entry after it.

    Raises:
        DamageError: an entry proves that the bad place had been synced.
    """
    size, proven, position = limits
    is_recycled = header.flags & entry_format.SEGMENT_RECYCLED
    # Positions only grow: entries of an older segment are passed over before they are read.
    least = header.first_position - 1 if is_recycled else 0
    last = error.offset
    for place, found in find_entry(segment, error.offset, size, least_position=least):
        last = place + entry_format.padded(found.length)
        if found.synced > error.offset:
            raise DamageError(
                segment_name(segment.number),
                error.offset,
                position + 1,
                f"{error.reason}; the entry at offset {place} was written after it had been synced",
            )
    if error.offset < proven:
        raise DamageError(segment_name(segment.number), error.offset, position + 1, error.reason)
    return last - error.offset


def _torn_bytes(segment: SegmentFile, start: int, size: int) -> int:
    """Bytes from `start` to the last one that is not zero."""
    last = start
    offset = start
    while offset < size:
        data = segment.file.read(min(1 << 20, size - offset), offset)
        filled = data.rstrip(b"\0")
        if filled:
            last = offset + len(filled)
        offset += len(data)
    return last - start


def _keep(entry: Entry) -> Kept:
    found = entry.header
    records = [
        Record(place.kind, place.flags, bytes(entry.data[place.start : place.start + place.length]))
        for place in entry_format.record_places(entry.data, found)
    ]
    return Kept(found.position, found.time_ms, found.seq, found.session, records, found.flags)


def refuse_lost_end(found: Recovered, known_position: Callable[[bytes], int]) -> None:
    """Refuse a journal that ends before what index or tree know of it.

    Raises:
        LostEndError: `known_position` is beyond the journal's end.
    """
    known = 0 if found.store is None else known_position(found.store)
    if known > found.position:
        raise LostEndError(
            f"the journal ends at position {found.position}, but records up to {known} were stored: its"
            " end is lost. Put the missing segments back, or let `perstack-stored repair` take back what it"
            " can and go on without the rest; with --dry-run it only reports"
        )
