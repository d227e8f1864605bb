"""Clients of a simulated history, and what they know: all that was sent, and all that was answered.

They do what wire.md asks of a client: numbers, retries in order, nothing forgotten. They are plain data, so
that a crash can be tried on a copy while the history goes on.
"""

import json
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple

from tests.simulation.expected import Stored
from tests.simulation.workload import Value, Workload, job_of

DELETION_ODDS = 0.08

# Of a store that does not find what it expects. After a restart the daemon may not know why it refused.
_NOT_FOUND = frozenset({"CONFLICT", "SEQUENCE_OLD"})


class Request(NamedTuple):
    """A frame of one store or several; `seq` 0 without a session. An atomic one is all or nothing."""

    seq: int
    values: tuple[Value, ...]
    bad: frozenset[int]  # indices of values that must be refused
    atomic: bool = False
    expect: tuple[str, int] | None = None  # nobody else has stored for the job after the position

    def frame(self, id: int, session: bytes, settled: int) -> bytes:
        """The bytes on the wire."""
        header: dict[str, Any] = {"v": 1, "id": id, "op": self.values[0].op}
        if len(self.values) > 1:
            header |= {"op": "store", "items": [[value.op, len(value.payload)] for value in self.values]}
        if self.atomic:
            header["atomic"] = True
        if self.expect:
            header["expect"] = dict(zip(("jobId", "position"), self.expect, strict=True))
        if self.seq:
            header |= {"session": session.hex(), "seq": self.seq, "settled": settled}
        return json.dumps(header).encode() + b"\n" + b"".join(value.payload for value in self.values)


class Retired(NamedTuple):
    """A deletion that retention has set about.

    Attributes:
        payload: its record.
        looked_at: the position up to which the job was looked at.
        aged_ms: a job with a later record is not old enough.
        jobs: how many jobs are kept; 0: all.
    """

    payload: bytes
    looked_at: int
    aged_ms: int
    jobs: int


class Violation(AssertionError):  # noqa: N818 - it is what was found
    """A promise was broken."""


class Ledger:
    """What was sent, acknowledged and seen, by everybody, over all crashes."""

    def __init__(self) -> None:
        self.sent: dict[tuple[bytes, int], Value] = {}  # by session and number
        self.loose: set[Value] = set()  # without a session
        # Atomic requests by session and number: how many values, and whether one of them is bad.
        self.atomic: dict[tuple[bytes, int], tuple[int, bool]] = {}
        self.expected: dict[tuple[bytes, int], tuple[str, int]] = {}  # by session and number
        self.conflicts: set[tuple[bytes, int]] = set()  # refused for good
        self.acknowledged: dict[int, Value] = {}  # by position
        self.numbers: dict[tuple[bytes, int], int] = {}  # position by session and number
        self.seen: dict[int, Stored] = {}  # by position: what a reader was shown
        self.imported: set[bytes] = set()
        self.starts: set[int] = set()  # last positions that daemons found when they started
        self.cursors_sent: set[int] = set()  # positions to which a named cursor was set
        self.retired: set[Retired] = set()
        self.cursor = 0  # the greatest one that was acknowledged

    def copy(self) -> "Ledger":
        new = Ledger()
        new.sent, new.loose, new.acknowledged = dict(self.sent), set(self.loose), dict(self.acknowledged)
        new.numbers, new.seen, new.imported = dict(self.numbers), dict(self.seen), set(self.imported)
        new.starts, new.atomic = set(self.starts), dict(self.atomic)
        new.expected, new.conflicts = dict(self.expected), set(self.conflicts)
        new.cursors_sent, new.cursor = set(self.cursors_sent), self.cursor
        new.retired = set(self.retired)
        return new

    def acknowledge(self, session: bytes, seq: int, value: Value, position: int) -> None:
        """A client got the position of its value."""
        known = self.acknowledged.setdefault(position, value)
        if known != value:
            raise Violation(f"position {position} was given to two different stores")
        if seq and self.numbers.setdefault((session, seq), position) != position:
            was = self.numbers[session, seq]
            raise Violation(f"store {seq} of {session.hex()} was at {was}, and is now at {position}")

    def may_be_deleted(self, job: str) -> bool:
        """Whether somebody has sent a deletion of a job, or of a run of it."""
        sent = (value for value in (*self.sent.values(), *self.loose) if value.op.startswith("delete"))
        return any(job_of(value) == job for value in sent) or any(
            json.loads(one.payload)["jobId"] == job for one in self.retired
        )

    def show(self, stored: Stored) -> None:
        """A reader was shown a record."""
        known = self.seen.setdefault(stored.position, stored)
        if known != stored:
            raise Violation(f"position {stored.position} was shown with one value, and now has another")


class Client:
    """A client with a session, or without one."""

    def __init__(self, name: int, session: bytes) -> None:
        self.name = name
        self.session = session
        self.next_seq = 1
        self.settled = 0
        self.unanswered: deque[Request] = deque()
        self.must_retry = False
        self.is_stale = False  # what it stored to was deleted
        self.renewed = 0  # sessions before this one
        self.held = 0  # the position of its last read, or of its last store that was answered

    def copy(self) -> "Client":
        new = Client(self.name, self.session)
        new.held = self.held
        new.next_seq, new.settled, new.must_retry = self.next_seq, self.settled, self.must_retry
        new.unanswered, new.is_stale, new.renewed = deque(self.unanswered), self.is_stale, self.renewed
        return new

    def make(self, workload: Workload, random: Random, end: int) -> Request:
        """A new request, which is now unanswered; a read at this moment would be answered with `end`."""
        count = 1 if random.random() < 0.6 else random.randint(2, 5)
        bad = frozenset(i for i in range(count) if self.session and random.random() < 0.05)
        if self.is_stale and self.session and not self.unanswered:
            self._renew()
        expect = None
        if self.session and random.random() < 0.4:
            if random.random() < 0.3:
                self.held = end
            expect = f"j{random.randrange(2)}", self.held
        if not bad and count == 1 and random.random() < DELETION_ODDS:
            return self._add(Request(0, (workload.deletion(),), bad, expect=expect))
        values = tuple(workload.bad_value() if i in bad else workload.value() for i in range(count))
        atomic = bool(self.session) and count > 1 and random.random() < 0.5
        return self._add(Request(0, values, bad, atomic, expect))

    def _renew(self) -> None:
        """Begin a new session: what the old one stored to was deleted."""
        self.session = blake2b(self.session, digest_size=16).digest()
        self.next_seq, self.settled, self.is_stale = 1, 0, False
        self.renewed += 1

    def _add(self, request: Request) -> Request:
        if self.session:
            request = request._replace(seq=self.next_seq)
            self.next_seq += len(request.values)
        self.unanswered.append(request)
        return request

    def frame(self, request: Request) -> bytes:
        return request.frame(self._id(request), self.session, self.settled)

    def give_up(self) -> None:
        """Stop waiting for the oldest request; nobody knows what has become of it."""
        request = self.unanswered.popleft()
        if request.seq:
            self.settled = max(self.settled, request.seq + len(request.values) - 1)

    def answer(self, frame: bytes, ledger: Ledger) -> None:
        """Take in an answer. An old one, to a request that was answered before, tells nothing new."""
        header = json.loads(frame.split(b"\n")[0])
        request = next((r for r in self.unanswered if self._id(r) == header["id"]), None)
        if request is None:
            return
        results = self._results(header, request)
        if results is None:
            self.must_retry = True
            return
        if len(results) != len(request.values):
            raise Violation(f"{len(request.values)} values, {len(results)} results")
        for i, (value, result) in enumerate(zip(request.values, results, strict=True)):
            if not isinstance(result, int) and result["code"] == "DELETED":
                if not any(ledger.may_be_deleted(job_of(one)) for one in request.values):
                    raise Violation(f"item {i} of {request.values} was refused, but its job never deleted")
                self.is_stale = True
                continue
            if request.expect and isinstance(result, dict) and result["code"] in _NOT_FOUND:
                ledger.conflicts.add((self.session, request.seq + i))
                continue
            must_be_refused = bool(request.bad) if request.atomic else i in request.bad
            if isinstance(result, int) == must_be_refused:
                raise Violation(f"item {i} of {request.values}: {result}")
            if isinstance(result, int):
                ledger.acknowledge(self.session, request.seq + i if request.seq else 0, value, result)
                self.held = max(self.held, result)
        self.unanswered.remove(request)
        if self.unanswered and self.session:
            self.settled = max(self.settled, self.unanswered[0].seq - 1)
        elif self.session:
            self.settled = self.next_seq - 1

    def _results(self, header: dict[str, Any], request: Request) -> list[Any] | None:
        """An outcome for each value: a position, or an error; None if it must be sent again."""
        count = len(request.values)
        if "results" in header:
            return list(header["results"])
        if header["ok"]:
            return [header["position"] + i for i in range(count)]
        error = header["error"]
        if error["retryable"]:
            return None
        if error["code"] == "DELETED" and (count == 1 or request.atomic):
            return [error] * count
        if error["code"] in _NOT_FOUND and request.expect and (request.atomic or count == 1):
            return [error] * count
        if (count > 1 and not request.atomic) or not request.bad:
            raise Violation(f"refused for good: {error}")
        if request.atomic and error.get("item") != min(request.bad):
            raise Violation(f"refused as a whole for {error}, but {request.bad} are bad")
        return [error] * count

    def note_sent(self, request: Request, ledger: Ledger) -> None:
        """Before a request leaves."""
        if request.atomic:
            ledger.atomic[self.session, request.seq] = len(request.values), bool(request.bad)
        for i, value in enumerate(request.values):
            if request.seq:
                ledger.sent[self.session, request.seq + i] = value
                if request.expect:
                    ledger.expected[self.session, request.seq + i] = request.expect
            else:
                ledger.loose.add(value)

    def _id(self, request: Request) -> int:
        return request.seq + self.renewed * 1_000_000 if request.seq else 1 + hash_of(request.values)


def hash_of(values: tuple[Value, ...]) -> int:
    """A number that is the same in every run."""
    data = b"".join(value.payload for value in values)
    return int.from_bytes(blake2b(data, digest_size=6).digest(), "big")


def sessions_of(seed: int) -> Iterator[bytes]:
    """Session keys without end."""
    random = Random(seed)
    while True:
        yield random.randbytes(16)
