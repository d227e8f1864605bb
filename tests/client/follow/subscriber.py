"""A subscriber in a thread, and what is stored for it."""

import threading
import time
from typing import Any

from perstack_storage import Client, Record, StorageError

SUBSCRIBERS = 50


def event(number: int, job: str = "j", run: str = "r") -> dict[str, Any]:
    return {
        "type": "t",
        "id": f"e{number}",
        "expertKey": "k",
        "timestamp": number,
        "jobId": job,
        "runId": run,
        "stepNumber": number,
    }


class Subscriber:
    """A thread that follows with a client of its own, and what it got."""

    def __init__(self, endpoint: str, **arguments: Any) -> None:
        self.records: list[Record] = []
        self.arrived: list[float] = []
        self.error: Exception | None = None
        self._client = Client(endpoint, timeout_s=60)
        self._iterator = self._client.follow(**arguments)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for record in self._iterator:
                self.records.append(record)
                self.arrived.append(time.monotonic())
        except StorageError as error:
            self.error = error

    def join(self, timeout_s: float = 60.0) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self._client.close()
        self.join()
        assert self.error is None

    @property
    def positions(self) -> list[int]:
        return [record["position"] for record in self.records]
