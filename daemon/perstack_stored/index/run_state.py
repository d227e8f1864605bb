"""What the writer of events remembers of a run: its newest event, and the names of that millisecond."""

from perstack_stored.index.event_blocks import N_MAX, EventColumns, EventRow
from perstack_stored.index.summaries import RunSummary

# Of one timestamp in blocks: a search for a name looks into all blocks with its timestamp.
_SAME_TIME_MAX = 256

Name = tuple[int, str]
"""Step and type."""
Look = tuple[int, int]
"""Length and crc32c of a value."""


class RunState:
    """A run, and its newest event.

    Attributes:
        timestamp: the newest one; -1 without an event, None if not known.
        step: the greatest one.
        first: the first event with this timestamp; None if not known.
        names: lengths and checksums of the events in blocks with this timestamp, by step and type; None if
            there is one event, or not known. A frozen set: rows have the name as well, and get all others.
        same_time: count of events in blocks with this timestamp.
        waiting: events that wait to be written into a block; None without any.
        counted: count of those that the summary has.
    """

    __slots__ = ("counted", "first", "id", "names", "same_time", "step", "summary", "timestamp", "waiting")

    def __init__(self, id: int, summary: RunSummary) -> None:
        self.id = id
        self.summary = summary
        self.counted = 0
        self.timestamp: int | None = None
        self.step = -1
        self.first: EventRow | None = None
        self.names: dict[Name, set[Look] | frozenset[Look]] | None = None
        self.same_time = 0
        self.waiting: EventColumns | None = None

    def wait(self, events: EventColumns) -> None:
        """Let events wait; their lists are this run's from now on."""
        if self.waiting is None:
            self.waiting = events
        else:
            self.waiting.append(events)

    def known_names(self) -> dict[Name, set[Look] | frozenset[Look]] | None:
        """The names of the events with the newest timestamp; None if they are not known."""
        if self.names is None and self.first is not None:
            _, _, step, _, size, crc, type, _ = self.first
            self.names = {(step, type): {(size, crc)}}
            self.same_time = 1
        return self.names

    def forget_names(self) -> None:
        """Until the next timestamp the run's events become rows."""
        self.first = self.names = None

    def number(self, row: EventRow) -> int:
        """The n of an event with the newest timestamp; 0 if it goes into a row."""
        names = self.names or self.known_names()
        if names is None or self.same_time >= _SAME_TIME_MAX:
            return 0
        _, _, step, _, size, crc, kind, _ = row
        known = names.get((step, kind))
        if known is None:
            known = names[step, kind] = set()
        elif type(known) is frozenset or (size, crc) in known or len(known) == N_MAX:
            return 0
        assert isinstance(known, set)
        known.add((size, crc))
        self.same_time += 1
        return len(known)

    def note_row(self, timestamp: int, name: Name) -> None:
        """A row of the table `event` has taken a name."""
        assert self.timestamp is not None
        if timestamp > self.timestamp:
            self.timestamp, self.first = timestamp, None
            self.names, self.same_time = {name: frozenset()}, 0
        elif timestamp == self.timestamp and (names := self.known_names()) is not None:
            names[name] = frozenset(names.get(name, ()))
