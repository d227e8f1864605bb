"""Following the store by position: what to ask next, and what an answer means. No sockets, no clocks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from perstack_storage._core.answers import records_of, value_of
from perstack_storage._core.epochs import SeenEpochs
from perstack_storage._core.errors import ProtocolError
from perstack_storage._core.jsonio import dumps
from perstack_storage._core.reads import Read
from perstack_storage._core.shapes import Record

_FILTERS, _CURSORS = "recordFilters", "cursors"

WAIT_MAX_S = 2.0
"""So long the daemon is asked to wait. One that was killed is missed a little later than that."""


class Start(NamedTuple):
    """Where a subscription begins: after a position of a history, and the epoch of the record there.

    With `last` it begins with the last N records, and `after` means nothing. With `name` it begins where that
    cursor stands, and as the others say if there is none yet.
    """

    after: int = 0
    store: str | None = None
    epoch: str | None = None
    last: int | None = None
    name: str | None = None


class Follow:
    """The state of a subscription.

    A driver does this until `done`: records = follow.take(<the answer to follow.request(now)>).
    The first request asks for the name of the history, so that another one at the same endpoint is noticed.

    Attributes:
        done: nothing new has come for `idle_s`.
    """

    def __init__(
        self,
        start: Start,
        filters: Mapping[str, Any],
        *,
        idle_s: float | None,
        timeout_s: float,
        seen: SeenEpochs | None = None,
    ) -> None:
        """`filters` are arguments of `readAll`; None stands for none."""
        self._filter = {name: value for name, value in filters.items() if value is not None}
        if "runId" in self._filter and "jobId" not in self._filter:
            raise ValueError("run_id needs job_id beside it")
        if idle_s is not None and not idle_s >= 0:
            raise ValueError("idle_s must not be negative")
        if start.last is not None and start.after:
            raise ValueError("last stands in the place of after")
        self.done = False
        self._after = start.after
        self._last = start.last
        self.name = start.name
        self._begins = start.last is not None or start.name is not None  # where, the daemon has to say
        filters_used = start.last is not None or self._filter.keys() & {"ops", "types"}
        self._needs = {_FILTERS} if filters_used else set()
        if start.name is not None:
            self._needs.add(_CURSORS)
        self._idle_s = idle_s
        self._store = start.store
        self._seen = SeenEpochs() if seen is None else seen
        self._epoch = self._seen.at(start.after) if start.epoch is None else start.epoch
        self._wait_max_s = min(WAIT_MAX_S, timeout_s / 4)
        self._quiet_since: float | None = None
        self._last_look = False

    def request(self, now: float) -> tuple[str, bytes, float]:
        """Returns operation and arguments of the next request, and how long its answer may be put off."""
        if self._store is None or self._needs:
            return "hello", b"", 0.0
        wait_s = self._wait_max_s
        if self._idle_s is not None:
            if self._quiet_since is None:
                self._quiet_since = now
            wait_s = max(0.0, min(wait_s, self._quiet_since + self._idle_s - now))
        wait_ms = int(wait_s * 1000)
        if self._begins:
            start = {"after": self._after} if self._last is None else {"last": self._last}
            named = {} if self.name is None else {"name": self.name}
            return "readAll", dumps({**named, **start, "store": self._store, **self._filter}), 0.0
        # Only an answer that was not waited for is sure to hold everything that was acknowledged before.
        self._last_look = wait_ms == 0
        arguments = {
            "after": self._after,
            "waitMs": wait_ms,
            "store": self._store,
            "epoch": self._epoch,
            **self._filter,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        return "readAll", dumps(given), wait_ms / 1000

    @property
    def after(self) -> int:
        """The position up to which it has come."""
        return self._after

    @property
    def epoch(self) -> str | None:
        """The epoch of that position, where it is known."""
        return self._epoch

    @property
    def store(self) -> str | None:
        """The history, once it is known."""
        return self._store

    def take(self, read: Read) -> list[Record]:
        """Takes a request with its answer; returns the records that it brought.

        Raises:
            PositionGone: the daemon has another history than the one that was followed.
            Refused: anything else that the daemon refused.
        """
        if read.op == "hello":
            hello = value_of(read)
            if type(hello) is not dict or "store" not in hello:
                raise ProtocolError("an answer to hello that does not name the history")
            if self._needs.difference(hello.get("features", ())):
                raise ProtocolError(f"the daemon is older: it has no {', '.join(sorted(self._needs))}")
            self._needs.clear()
            self._store = self._store or str(hello["store"])
            if self._last == 0:  # what is stored from now on, also if the next request has to be repeated
                self._last, self._after = None, read.position or 0
                self._begins = self.name is not None
            return []
        self._begins = False
        records = records_of(read, self._after, self._seen)
        self._after, self._epoch = read.next, read.epoch
        if self.name is not None:
            for record in records:
                record["cursor"] = self.name
        if records:
            self._quiet_since = None
        elif self._last_look and read.next >= (read.position or 0):
            self.done = True
        return records


class Commits:
    """When the cursor of a subscription is set, and to which position."""

    def __init__(self, follow: Follow, every_s: float | None) -> None:
        """`every_s` is the least time between two settings; None for none by itself."""
        if every_s is not None and follow.name is None:
            raise ValueError("commit_every needs name beside it")
        if every_s is not None and not every_s >= 0:
            raise ValueError("commit_every must not be negative")
        self._follow = follow
        self._every_s = every_s
        self._done: tuple[int, str | None] = (0, None)
        self._set_to = self._set_at = 0.0

    def note_record(self, record: Record) -> None:
        """Note that the caller is done with a record."""
        if self._every_s is not None:
            self._done = record["position"], record.get("epoch")

    def note_all(self) -> None:
        """Note that the caller is done with all records so far, and with the positions passed over."""
        if self._every_s is not None:
            self._done = self._follow.after, self._follow.epoch

    def due(self, now: float) -> dict[str, Any] | None:
        """The arguments of `setCursor`, if it is time for it."""
        position, epoch = self._done
        if self._every_s is None or position <= self._set_to:
            return None
        if now - self._set_at < self._every_s and not self._follow.done:
            return None
        self._set_to, self._set_at = position, now
        arguments = {"name": self._follow.name, "position": position}
        return arguments | {"store": self._follow.store, "epoch": epoch}
