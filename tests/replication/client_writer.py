"""A writer of the campaign that uses the Python client, which finds another daemon by itself."""

import random
import threading
import time
from concurrent.futures import Future

from perstack_storage import Client, Refused
from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import event

WINDOW = 64
READ_EVERY = 200
TIMEOUT_S = 120.0


class ClientWriter(threading.Thread):
    """Stores events through one client with the endpoints of all daemons, and reads its own now and then."""

    def __init__(self, name: str, daemons: list[RunningDaemon], seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._random = random.Random(seed)
        self._endpoints = [daemon.endpoint for daemon in daemons]
        self._random.shuffle(self._endpoints)
        self.acked: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        self.stopping = False
        self.moves = 0
        self.longest = 0.0  # time without an answer, in seconds
        self.fault: BaseException | None = None

    def run(self) -> None:
        """Store until stopped, and all is answered."""
        try:
            # The futures tell each refusal.
            with Client(self._endpoints, timeout_s=TIMEOUT_S, on_error=lambda _: None) as client:
                self._store(client)
                self.moves = client._connection()._core._rotation.moves
        except BaseException as error:  # noqa: BLE001 - the judge shows it
            self.fault = error

    def _store(self, client: Client) -> None:
        waiting: list[tuple[int, Future[int]]] = []
        seq, answered = 0, time.monotonic()
        while not self.stopping or waiting:
            while len(waiting) < WINDOW and not self.stopping:
                seq += 1
                kind = "wrong" if self._random.random() < 0.02 else "startRun"
                value = event(f"{self.name}-{seq}", jobId=self.name, runId="r", stepNumber=seq, type=kind)
                if kind == "wrong":
                    value["stepNumber"] = "none"
                waiting.append((seq, client.store_event_nowait(value)))
            number, future = waiting.pop(0)
            try:
                self.acked[number] = future.result(TIMEOUT_S)
            except Refused as error:
                self.refused[number] = str(error.code)
            self.longest = max(self.longest, time.monotonic() - answered)
            answered = time.monotonic()
            if number % READ_EVERY == 0:
                self._read(client)
                answered = time.monotonic()

    def _read(self, client: Client) -> None:
        acked = list(self.acked)
        there = {found["stepNumber"] for found in client.get_events_by_run(self.name, "r")}
        assert there.issuperset(acked), f"{self.name}: a read lacks {sorted(set(acked) - there)[:5]}"
