"""Replicated log: each daemon comes to the same records, whatever happened to it on the way."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal.deletion_guards import DeletionGuards
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.journal.options import History, JournalOptions
from perstack_stored.journal.replicated_sessions import ReplicatedSessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.replication import message as log_message
from perstack_stored.replication.apply import LogCommitter
from perstack_stored.replication.message import CURSOR, REFUSED, LoggedRequest, MessageType
from perstack_stored.replication.stream import LoggedMessage
from perstack_stored.store.requests import StoreRequest
from tests.helpers.datadir import JournalFolder, Stored
from tests.helpers.raw_client import event

HISTORY = History(b"s" * 16, b"l" * 16)
DAEMON = b"d" * 16
EVENT, DELETION = int(Kind.EVENT), int(Kind.DELETION)
GUARD_SECONDS = 60


def dumps(value: object) -> bytes:
    """JSON."""
    return json.dumps(value).encode()


class Replica:
    """A journal that applies the log."""

    def __init__(self, path: Path, segment_bytes: int, sessions_max: int) -> None:
        self.folder = JournalFolder(path)
        self._options = JournalOptions(segment_bytes, segment_bytes, ahead=False, history=HISTORY)
        self._sessions_max = sessions_max
        self.open()

    def open(self) -> None:
        """Open the journal, as at a start."""
        self.sessions = ReplicatedSessions(
            sessions_max=self._sessions_max,
            remembered_records_max=8,
            guards=DeletionGuards(guard_seconds=GUARD_SECONDS, guards_max=3),
            writers_max=6,
        )
        self.journal = JournalWriter(FileSystem(), self.folder.fd, self.sessions, self._options)
        self.committer = LogCommitter(self.journal, self.sessions)

    def apply(self, logged: LoggedMessage) -> None:
        """Apply a message; it is not synced."""
        self.committer.apply(logged, log_message.decode(logged.body), {})

    def crash(self, keep: float) -> None:
        """End without a sync of the last message: a part of its bytes is lost."""
        journal = self.journal
        start, end = journal.mark.offset, journal.written.offset
        cut = start + int((end - start) * keep)
        path = self.folder.segments()[-1]
        with path.open("r+b") as file:
            file.seek(cut)
            file.write(bytes(end - cut))
        FileSystem().close(journal._fd)
        self.open()

    def restart(self) -> None:
        """Stop in order, and start."""
        self.journal.close()
        self.open()

    def facts(self) -> tuple[object, ...]:
        """What all replicas must agree on."""
        self.journal.sync()
        records = self.folder.read(self.journal.mark)
        return self.sessions.log, records, self.sessions.cursors.all(), self.sessions.writers.snapshot()


def make_log(seed: int, count: int) -> list[LoggedMessage]:
    """A log: new stores, repeats, gaps, refused ones, expectations, deletions, cursors; of a few sessions."""
    chance = random.Random(seed)
    last = dict.fromkeys(range(5), 0)
    log = []
    time_ms = 1_000_000
    expecting = random.Random(seed + 2)
    fenced = expecting.randint(0, 90)  # from this message on, stores expect something
    for sequence in range(1, count + 1):
        requests = [_request(chance, last, sequence) for _ in range(chance.randint(0, 4))]
        if sequence > fenced:
            requests = [_expecting(expecting, request, sequence) for request in requests]
        time_ms += chance.choice((0, 1, 500, 20_000, -5_000))
        body = log_message.encode(MessageType.STORES, DAEMON, sequence, requests)
        log.append(LoggedMessage(sequence, time_ms, body))
    return log


def _expecting(chance: random.Random, request: LoggedRequest, sequence: int) -> LoggedRequest:
    """A request that may expect something: the positions up to now are not known, but about as many."""
    if request.session == bytes(16) or chance.random() < 0.5:
        return request
    owner = chance.choice("xyz"), chance.choice(("", "r"))
    position = int(sequence * chance.uniform(0.2, 1.0))
    return request._replace(expect=Expectation(owner, position))


def _request(chance: random.Random, last: dict[int, int], sequence: int) -> LoggedRequest:
    # A cursor is published by a daemon that has applied what it stands for: records up to 3, say.
    if sequence > 30 and chance.random() < 0.1:
        cursor = {"name": chance.choice("ab"), "position": chance.choice((None, 1, 2, 3)), "force": False}
        return LoggedRequest(bytes(16), 0, 0, False, [(CURSOR, dumps(cursor))])
    number = chance.choice(list(last))
    key = bytes([number + 1]) * 16
    if chance.random() < 0.02:
        last[number] = 0  # a client that begins again under the name: its numbers are repeats
    seq = last[number] + chance.choice((1, 1, 1, 1, 1, 0, -2, 2))
    seq = max(1, seq)
    settled = chance.choice((0, seq - 1, last[number]))
    job = chance.choice("xyz")
    if chance.random() < 0.1:
        last[number] = max(last[number], seq)
        deletion = {"jobId": job} if chance.random() < 0.5 else {"jobId": job, "runId": "r"}
        return LoggedRequest(key, seq, settled, False, [(DELETION, dumps(deletion))])
    items = []
    for i in range(chance.choice((1, 1, 1, 3))):
        refused = chance.random() < 0.15
        value = dumps(event(f"{number}-{seq + i}-{sequence}", jobId=job, runId="r"))
        items.append((REFUSED, b"") if refused else (EVENT, value))
    last[number] = max(last[number], seq + len(items) - 1)
    return LoggedRequest(key, seq, settled, chance.random() < 0.3, items)


@settings(max_examples=15)
@example(seed=4)  # repeats made a session newer
@example(seed=14)  # half of a message was on disk, and the rest judged after what it had changed
@example(seed=35)  # the head of a segment repeated the guard of a deletion that was not written
@example(seed=84)  # what was stored in the same message was no conflict
@example(seed=255)  # a gap in a session was accepted
@example(seed=585)  # a session gave way to others within a message
@given(seed=st.integers(0, 2**32))
def test_all_replicas_come_to_the_same(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One goes on undisturbed; one dies and starts again at any message, with its end torn anywhere."""
    folder = tmp_path_factory.mktemp("replicas")
    log = make_log(seed, 60)
    # With 3, all five are remembered, if only by their last number. With 2, some are forgotten.
    sessions_max = 2 + seed % 2
    whole = Replica(folder / "whole", 1 << 16, sessions_max)
    broken = Replica(folder / "broken", 1 << 12, sessions_max)
    chance = random.Random(seed + 1)
    for logged in log:
        whole.apply(logged)
    sequence = 0
    while sequence < len(log):
        broken.apply(log[sequence])
        sequence += 1
        fate = chance.random()
        if fate < 0.2:
            broken.crash(chance.random())
        elif fate < 0.3:
            broken.restart()
        elif fate < 0.8:
            broken.journal.sync()
        sequence = broken.sessions.log.sequence
    assert broken.facts() == whole.facts()
    records = whole.folder.read(whole.journal.mark)
    if sessions_max > 2:
        _stands_once(records)
        assert {(record.session, record.seq) for record in records} <= admitted(log)
    _found_what_they_expected(log, records)
    for replica in (whole, broken):
        replica.journal.close()


def test_what_a_lost_message_stored_is_no_conflict_when_it_is_applied_again(tmp_path: Path) -> None:
    """The head of a segment, which is written before the message, must not tell of it."""
    replica = Replica(tmp_path / "one", 1 << 12, sessions_max=3)
    first, second, crashes = b"a" * 16, b"b" * 16, 0
    for sequence in range(1, 31):
        value = [(EVENT, dumps(event(f"e{sequence}", jobId="x", text="t" * 100)))]
        requests = [
            LoggedRequest(first, sequence, 0, False, value, Expectation(("x", ""), 2 * (sequence - 1))),
            LoggedRequest(second, sequence, 0, False, value),
        ]
        body = log_message.encode(MessageType.STORES, DAEMON, sequence, requests)
        logged = LoggedMessage(sequence, 1_000_000, body)
        segment = replica.journal.written.segment
        replica.apply(logged)
        if replica.journal.written.segment != segment:
            replica.crash(0)
            crashes += 1
            assert replica.sessions.log.sequence == sequence - 1
            replica.apply(logged)
        replica.journal.sync()
        assert replica.journal.mark.position == 2 * sequence
    assert crashes
    replica.journal.close()


@pytest.mark.parametrize("known", [0, 1])  # stores of the session before this message
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("copies", [2, 3])
def test_a_retry_in_the_message_of_its_first_store_gets_its_position(
    tmp_path: Path, known: int, copies: int, *, atomic: bool
) -> None:
    """A client asks again while its store still waits: both are published together."""
    replica = Replica(tmp_path / "one", 1 << 16, sessions_max=3)
    key, other = b"a" * 16, b"b" * 16
    for sequence in range(1, known + 1):
        value = [(EVENT, dumps(event(f"e{sequence}")))]
        body = log_message.encode(
            MessageType.STORES, DAEMON, sequence, [LoggedRequest(key, sequence, 0, False, value)]
        )
        replica.apply(LoggedMessage(sequence, 1_000_000, body))
    seq = known + 1
    items = [(EVENT, dumps(event(f"new-{i}"))) for i in range(2 if atomic else 1)]
    logged = LoggedRequest(key, seq, 0, atomic, items)
    between = LoggedRequest(other, 1, 0, False, [(EVENT, dumps(event("between")))])
    requests = [logged, between, *[logged] * (copies - 1)]
    op = "store" if atomic else "storeEvent"
    own = {
        i: StoreRequest((i, False), i, key, seq, 0, [], atomic, 0, op, atomic=atomic)
        for i, request in enumerate(requests)
        if request is logged
    }
    body = log_message.encode(MessageType.STORES, DAEMON, seq, requests)
    applied = replica.committer.apply(LoggedMessage(seq, 1_000_000, body), log_message.decode(body), own)
    answers = [json.loads(reply) for _, reply in applied.replies]
    assert [answer["position"] for answer in answers] == [known + 1] * copies, answers
    assert replica.journal.written.position == known + len(items) + 1
    replica.journal.close()


def admitted(log: list[LoggedMessage]) -> set[tuple[bytes, int]]:
    """Numbers that leave no gap in their session: the one before came, or is settled."""
    last: dict[bytes, int] = {}
    found = set()
    for logged in log:
        for request in log_message.decode(logged.body).requests:
            before, end = last.get(request.session, 0), request.seq + len(request.items) - 1
            if request.seq <= before + 1 or request.settled >= request.seq - 1:
                found |= {(request.session, seq) for seq in range(request.seq, end + 1)}
                last[request.session] = max(before, end)
    return found


def _found_what_they_expected(log: list[LoggedMessage], records: list[Stored]) -> None:
    """Nobody else had stored for the job after the position that a stored value expected."""
    expected: dict[bytes, list[Expectation | None]] = {}  # of all requests that held the value
    for logged in log:
        for request in log_message.decode(logged.body).requests:
            if request.items[0][0] != DELETION:
                for _, payload in request.items:
                    expected.setdefault(bytes(payload), []).append(request.expect)
    owners = [(value["jobId"], value.get("runId", "")) for value in (json.loads(r.payload) for r in records)]
    for i, record in enumerate(records):
        if all(expected.get(record.payload, [None])):
            assert any(
                _last_of_others(record, expects.owner, list(zip(records[:i], owners[:i], strict=True)))
                <= expects.position
                < record.position
                for expects in expected[record.payload]
                if expects is not None
            )


def _last_of_others(
    record: Stored, owner: tuple[str, str], before: list[tuple[Stored, tuple[str, str]]]
) -> int:
    """Position of the last record for a job or run that another session stored; 0 if there is none."""
    job, run = owner
    return max(
        (
            other.position
            for other, (other_job, other_run) in before
            if other_job == job and run in ("", other_run) and other.session != record.session
        ),
        default=0,
    )


def _stands_once(records: list[Stored]) -> None:
    """No session has two records of one number."""
    numbers = [(record.session, record.seq) for record in records]
    assert len(numbers) == len(set(numbers))
