"""A writer of the campaign that speaks to one daemon after the other, in one session."""

import secrets
import time
from collections import OrderedDict
from typing import Any

import zmq

from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw, event

from .answers import Pace, Recorder

WINDOW = 16
LARGE = "x" * (9 << 20)
"""Of a value that goes through the log in pieces."""
_ANSWER_SECONDS = 10.0  # then another daemon is asked
_RETRYABLE = frozenset({"BUSY", "STOPPING", "SEQUENCE_GAP", "DEADLINE"})
_WRONG = 0.02  # share of the values that are refused


class Writer(Recorder):
    """Stores events in one session, several in flight, and moves to another daemon now and then."""

    def __init__(self, name: str, daemons: list[RunningDaemon], seed: int, pace: Pace) -> None:
        super().__init__(name, daemons, seed, pace)
        self.session = secrets.token_hex(16)
        self._unanswered: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._next = 1
        self._begun = self._answered = time.monotonic()
        self._large_at = self._begun + self.random.uniform(0, pace.large_seconds)

    def store_all(self) -> None:
        """Visit daemons until stopped, and all is answered."""
        while not (self.stopping and not self._unanswered):
            self._visit(self.random.choice(self.daemons))

    def _visit(self, daemon: RunningDaemon) -> None:
        """Store through one daemon for a while."""
        self.moves += 1
        until = time.monotonic() + self.random.uniform(0.5, 3.0)
        with Raw(daemon.endpoint) as raw:
            numbers: dict[int, int] = {}
            for seq, value in self._unanswered.items():
                numbers[self._send(raw, seq, value)] = seq
            while time.monotonic() < until or self._unanswered:
                if time.monotonic() < until and not self.stopping:
                    self._fill(raw, numbers)
                if not self._unanswered:
                    if self.stopping:
                        return
                    time.sleep(0.01)
                    self._answered = time.monotonic()
                    continue
                if not raw.socket.poll(500, zmq.POLLIN):
                    if time.monotonic() > until + _ANSWER_SECONDS:
                        return
                    continue
                self.longest = max(self.longest, time.monotonic() - self._answered)
                self._answered = time.monotonic()
                if not self._take(raw, numbers):
                    time.sleep(0.05)
                    return

    def _fill(self, raw: Raw, numbers: dict[int, int]) -> None:
        due = (time.monotonic() - self._begun) * self.pace.per_second
        while len(self._unanswered) < WINDOW and self._next <= due:
            seq, self._next = self._next, self._next + 1
            is_wrong = self.random.random() < _WRONG
            kind = "wrong" if is_wrong else "startRun"
            value = event(f"{self.name}-{seq}", jobId=self.name, runId="r", stepNumber=seq, type=kind)
            if is_wrong:
                value["stepNumber"] = "none"
            elif time.monotonic() > self._large_at:
                self._large_at = time.monotonic() + self.random.uniform(0, 2 * self.pace.large_seconds)
                value["text"] = LARGE
            self._unanswered[seq] = value
            numbers[self._send(raw, seq, value)] = seq

    def _send(self, raw: Raw, seq: int, value: dict[str, Any]) -> int:
        settled = next(iter(self._unanswered)) - 1
        return raw.send("storeEvent", value, session=self.session, seq=seq, settled=settled)

    def _take(self, raw: Raw, numbers: dict[int, int]) -> bool:
        """Take an answer; returns whether another daemon need not be asked."""
        answer = raw.receive()
        seq = numbers.pop(answer.header["id"])
        if answer.header["ok"]:
            self.ack(seq, answer.position)
        elif answer.code in _RETRYABLE:
            return False
        else:
            self.refuse(seq, answer.code)
        self._unanswered.pop(seq, None)
        return True
