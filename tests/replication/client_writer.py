"""A writer of the campaign that uses the Python client, which finds another daemon by itself."""

import time
from concurrent.futures import Future

from perstack_storage import Client, Refused
from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import event

from .answers import Pace, Recorder

WINDOW = 64
READ_EVERY = 200
TIMEOUT_S = 120.0


class ClientWriter(Recorder):
    """Stores events through one client with the endpoints of all daemons, and reads its own now and then."""

    def __init__(self, name: str, daemons: list[RunningDaemon], seed: int, pace: Pace) -> None:
        super().__init__(name, daemons, seed, pace)
        self._endpoints = [daemon.endpoint for daemon in daemons]
        self.random.shuffle(self._endpoints)

    def store_all(self) -> None:
        """Store through one client until stopped, and all is answered."""
        # The futures tell each refusal.
        with Client(self._endpoints, timeout_s=TIMEOUT_S, on_error=lambda _: None) as client:
            self._store(client)
            self.moves = client._connection()._core._rotation.moves

    def _store(self, client: Client) -> None:
        waiting: list[tuple[int, Future[int]]] = []
        seq, begun = 0, time.monotonic()
        while not self.stopping or waiting:
            due = (time.monotonic() - begun) * self.pace.per_second
            while len(waiting) < WINDOW and seq < due and not self.stopping:
                seq += 1
                kind = "wrong" if self.random.random() < 0.02 else "startRun"
                value = event(f"{self.name}-{seq}", jobId=self.name, runId="r", stepNumber=seq, type=kind)
                if kind == "wrong":
                    value["stepNumber"] = "none"
                waiting.append((seq, client.store_event_nowait(value)))
            if not waiting:
                time.sleep(0.01)
                continue
            number, future = waiting.pop(0)
            asked = time.monotonic()
            try:
                self.ack(number, future.result(TIMEOUT_S))
            except Refused as error:
                self.refuse(number, str(error.code))
            self.longest = max(self.longest, time.monotonic() - asked)
            if number % READ_EVERY == 0:
                self._read(client)

    def _read(self, client: Client) -> None:
        acked = list(self.answers.acked)
        there = {found["stepNumber"] for found in client.get_events_by_run(self.name, "r")}
        assert there.issuperset(acked), f"{self.name}: a read lacks {sorted(set(acked) - there)[:5]}"
