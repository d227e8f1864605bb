"""Events of a job as lines: the deltas of a stream are one, all runs in time order. No I/O."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from perstack_storage._views import wording
from perstack_storage._views.units import size_of, span_of

_JOINED_MAX = 1 << 20
"""Characters of the deltas of a stream that are kept for a search."""


class Item(NamedTuple):
    """A line of the log.

    Attributes:
        event: the event; of several deltas the first.
        text: what it says, in one line; not yet escaped.
        searched: what is looked through, where it is more than the text.
        deltas: number of them; 0 for an event that is none.
        until: time of the last delta.
    """

    event: Any
    text: str
    searched: str = ""
    deltas: int = 0
    until: float = 0

    @property
    def time(self) -> float:
        """In milliseconds since 1970."""
        return float(self.event["timestamp"])


def plain(events: Iterable[Any]) -> Iterator[Item]:
    """Each event as an item."""
    for event in events:
        yield Item(event, wording.text_of(event))


def folded(events: Iterable[Any]) -> Iterator[Item]:
    """The same with the deltas of a stream and its start as one item. All events are of one run."""
    stream: _Stream | None = None
    for event in events:
        if stream is not None and stream.takes(event):
            stream.add(event)
            continue
        if stream is not None:
            yield stream.item()
            stream = None
        if event["type"] in wording.DELTAS or event["type"] in wording.STREAM_STARTS:
            stream = _Stream(event)
        else:
            yield Item(event, wording.text_of(event))
    if stream is not None:
        yield stream.item()


def folded_back(events: Iterable[Any]) -> Iterator[Item]:
    """The items of `folded`, newest first, of events that come newest first."""
    group: list[Any] = []
    for event in events:
        if group and not _precedes(event, group[-1]):
            yield _stream_of(group).item()
            group = []
        if event["type"] in wording.DELTAS or (group and event["type"] in wording.STREAM_STARTS):
            group.append(event)
        else:
            yield Item(event, wording.text_of(event))
    if group:
        yield _stream_of(group).item()


def _precedes(event: Any, later: Any) -> bool:
    """Whether an event is the delta before this one in its stream, or the start of the stream."""
    if later["type"] not in wording.DELTAS or event["stepNumber"] != later["stepNumber"]:
        return False
    return bool(wording.STREAM_STARTS.get(event["type"], event["type"]) == later["type"])


def _stream_of(group: list[Any]) -> "_Stream":
    stream = _Stream(group.pop())
    for event in reversed(group):
        stream.add(event)
    return stream


class _Stream:
    """The start of a stream and its deltas, as far as they follow each other."""

    def __init__(self, first: Any) -> None:
        self._first = first
        self._type = wording.STREAM_STARTS.get(first["type"], first["type"])
        self._texts: list[str] = []
        self._kept = self._count = self._bytes = 0
        self._until = float(first["timestamp"])
        if first["type"] == self._type:
            self.add(first)

    def takes(self, event: Any) -> bool:
        """Whether an event is the next delta of this stream."""
        return bool(event["type"] == self._type and event["stepNumber"] == self._first["stepNumber"])

    def add(self, event: Any) -> None:
        """Count a delta."""
        delta = event.get("delta")
        text = delta if isinstance(delta, str) else ""
        self._count += 1
        self._bytes += len(text.encode(errors="surrogatepass"))
        self._until = float(event["timestamp"])
        if self._kept < _JOINED_MAX:
            self._texts.append(text)
            self._kept += len(text)

    def item(self) -> Item:
        """The stream as a line."""
        if not self._count:
            return Item(self._first, wording.text_of(self._first))
        noun = "delta" if self._count == 1 else "deltas"
        took = span_of(self._until - self._first["timestamp"])
        text = f"{self._count:,} {noun}, {size_of(self._bytes)}, {took}"
        shown = {**self._first, "type": self._type}
        return Item(shown, text, "".join(self._texts), self._count, self._until)


def merged(runs: Iterable[tuple[float, Iterator[Item]]], *, newest_first: bool = False) -> Iterator[Item]:
    """The items of all runs by time. A run is read only as far as it is needed.

    Args:
        runs: of each run a time before its first item, and its items by time.
        newest_first: the other way round; the times are those after the last items.
    """
    sign = -1 if newest_first else 1
    heap: list[tuple[float, int, Item | None, Iterator[Item]]] = [
        (sign * bound, number, None, items) for number, (bound, items) in enumerate(runs)
    ]
    heapq.heapify(heap)
    while heap:
        _, number, item, items = heap[0]
        if item is not None:
            yield item
        following = next(items, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (sign * following.time, number, following, items))
