"""Fences: a store may expect that nobody else has stored for its job since a position.

Nothing is kept until the first such store. It has the end of the journal read, in a thread unless that is
short, and is asked to come again then (`BUSY`). From then on each commit notes what it writes.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import DamageError, Refusal
from perstack_stored.journal import entry_format
from perstack_stored.journal.last_writers import Expectation, LastWriters
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model import gaps
from perstack_stored.model.kinds import Kind
from perstack_stored.model.owners import Owner, owner_of

HISTORY_BYTES = 64 << 20
"""Bytes of the journal's end that are read at least, in whole segments."""
AT_ONCE_BYTES = 256 << 10
"""A journal of at most this size is read by the caller: it takes some milliseconds."""
_WAITING_MAX = 65_536
_RETRY_MS = 20

_log = structlog.get_logger()


class _Noted(NamedTuple):
    owner: Owner
    session: bytes
    position: int


class Fences:
    """The last writers, once a store has asked for them."""

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        self._writers: LastWriters | None = None
        self._reading: _Reading | None = None
        self._waiting: list[_Noted] = []  # what was written since the reading began

    @property
    def active(self) -> bool:
        """Whether each record that is written must be noted."""
        return self._writers is not None or self._reading is not None

    def begin(self) -> None:
        """Begin to read the journal's end, unless it is known. Not within a batch: each record counts."""
        if self.active:
            return
        journal = self._journal
        if journal.bytes_between(LogPosition(0, 1, 0)) <= AT_ONCE_BYTES:
            self._writers = _read(journal, journal.written, lambda: False)
        else:
            self._reading = _Reading(journal)

    def prepare(self) -> None:
        """See that the last writers are known; to be called before the numbers of a store are taken.

        Raises:
            Refusal: BUSY, while the journal's end is read.
        """
        if self._writers is not None:
            return
        if self._reading is not None:
            self._writers = self._reading.finished()
        if self._writers is None:
            raise Refusal(ErrorCode.BUSY, "the end of the history is being read", retry_after_ms=_RETRY_MS)
        self._reading = None
        waiting, self._waiting = self._waiting, []
        for noted in waiting:
            self._writers.note(*noted)

    def note(self, owner: Owner, session: bytes, position: int) -> None:
        """Note a record that is about to be written; called while `active`."""
        if self._writers is not None:
            self._writers.note(owner, session, position)
        elif len(self._waiting) < _WAITING_MAX:
            self._waiting.append(_Noted(owner, session, position))
        else:
            self.forget()  # the next store that asks has it read again

    def forget(self) -> None:
        """Forget everything: what was noted was not written."""
        if self._reading is not None:
            self._reading.stop()
        self._writers = self._reading = None
        self._waiting = []

    def conflict(self, expected: Expectation, session: bytes, end: int) -> Refusal | None:
        """Why a store does not find what it expects; None if it does.

        Args:
            expected: what it expects.
            session: of the store.
            end: the last position of the history.
        """
        assert self._writers is not None
        return conflict_at(self._writers.met(expected.owner, session), expected, end)

    def stop(self) -> None:
        """End the thread."""
        if self._reading is not None:
            self._reading.stop()


def conflict_at(met: int, expected: Expectation, end: int) -> Refusal | None:
    """Why a store does not find what it expects, if another session stored last at `met`; None if it does.

    `end` is the last position of the history.
    """
    if expected.position > end:
        said = f"position {expected.position} is after the end of this history, {end}"
        return Refusal(ErrorCode.CONFLICT, said, "expect", position=end)
    if met <= expected.position:
        return None
    said = f"another session stored for it at position {met}, after {expected.position}, or may have"
    return Refusal(ErrorCode.CONFLICT, said, "expect", position=met)


class _Reading:
    """Reads the end of the journal in a thread."""

    def __init__(self, journal: JournalWriter) -> None:
        self._journal, self._until = journal, journal.written
        self._done: queue.SimpleQueue[LastWriters] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="fences", daemon=True)
        self._thread.start()

    def finished(self) -> LastWriters | None:
        """Return what was read; None while it goes on."""
        try:
            return self._done.get(block=False)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """End the thread; what it has read is not needed any more."""
        self._stopped = True

    def _run(self) -> None:
        try:
            writers = _read(self._journal, self._until, lambda: self._stopped)
        except Exception:  # noqa: BLE001 - without an outcome, stores would get BUSY for ever
            _log.exception("history_unreadable")
            writers = LastWriters(self._until.position)
        self._done.put(writers)


def _read(journal: JournalWriter, until: LogPosition, stopped: Callable[[], bool]) -> LastWriters:
    """Read the last writers from the end of the journal; if it can't be read, none are known up to there."""
    try:
        reader = journal.open_reader()
        try:
            return _last_writers(reader, until, stopped)
        finally:
            reader.close()
    except (DamageError, OSError, Refusal) as error:
        # Clients read again, and expect a newer position.
        _log.warning("history_unreadable", reason=str(error))
        return LastWriters(until.position)


def _last_writers(reader: JournalReader, until: LogPosition, stopped: Callable[[], bool]) -> LastWriters:
    """Read the last writers from `HISTORY_BYTES` or more.

    Raises:
        DamageError: an entry is not valid.
        OSError: the journal can't be read.
    """
    start = _start(reader, until)
    writers = LastWriters(start.position)
    for entry in reader.entries(start, until):
        if stopped():
            break
        for noted in _records_of(entry):
            if noted.owner is None:
                # A lost record, of whomever and whatever: nothing before it says who stored last.
                writers = LastWriters(noted.position)
            else:
                writers.note(noted.owner, noted.session, noted.position)
    return writers


class _Found(NamedTuple):
    owner: Owner | None
    session: bytes
    position: int


def _start(reader: JournalReader, until: LogPosition) -> LogPosition:
    """The beginning of a segment, so that enough bytes come after it."""
    reader.chain.refresh()
    number, size = until.segment, until.offset
    while number > 1 and size < HISTORY_BYTES:
        number -= 1
        size += reader.chain.end_of(number) or 0
    first = reader.chain.headers[number].first_position
    return LogPosition(max(0, first - 1), number, entry_format.SEGMENT_HEADER_BYTES)


def _records_of(entry: Entry) -> Iterator[_Found]:
    header = entry.header
    places = entry_format.record_places(entry.data, header)
    for position, place in enumerate(places, header.position):
        payload = entry.data[place.start : place.start + place.length]
        if place.kind != Kind.GAP:
            yield _Found(owner_of(place.kind, payload), header.session, position)
            continue
        gap = gaps.decode(payload)
        if not gap.removed:
            owner = (gap.job, gap.runId) if gap.job else None
            yield _Found(owner, entry_format.NO_SESSION, position)
        elif gap.job:
            yield _Found((gap.job, gap.runId), header.session, position)
        # Else it was erased with its job: what counts of that is its deletion, and what came later.
