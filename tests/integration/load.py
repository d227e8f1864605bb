"""Clients that store while a daemon or its workers end, and what must be there afterwards."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from perstack_storage import Client
from tests.helpers.daemon import eventually
from tests.helpers.raw_client import Raw, checkpoint, event, job


@contextmanager
def load(endpoint: str, clients: int = 3) -> Iterator[dict[int, str]]:
    """Clients that store events one after the other; position and id of what was acknowledged.

    At the end each of them has its last store answered, across restarts of the daemon.
    """
    acknowledged: dict[int, str] = {}
    done = threading.Event()
    failures: list[Exception] = []

    def store(name: str) -> None:
        try:
            with Client(endpoint, timeout_s=60) as client:
                n = 0
                while not done.is_set():
                    n += 1
                    id = f"{name}-{n}"
                    step = n // 10
                    value = event(id, jobId=name, stepNumber=step, timestamp=n, text="x" * 500)
                    acknowledged[client.store_event(value)] = id
                    time.sleep(0.005)  # enough of a load; more costs CPU time alone
                    if n % 10 == 0:
                        client.store_checkpoint(checkpoint(f"c{step % 3}", jobId=name, stepNumber=step))
                        client.store_job(job(name, totalSteps=step))
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=store, args=(f"job{n}",)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(acknowledged) > 20 or bool(failures), "the load has begun")
        yield acknowledged
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


def assert_all_there(raw: Raw, acknowledged: dict[int, str]) -> None:
    """Each acknowledged event is at its position, and no event is there twice."""
    events = [record for record in raw.read_all() if record["op"] == "storeEvent"]
    found = {record["position"]: record["value"]["id"] for record in events}
    assert {position: found.get(position) for position in acknowledged} == acknowledged
    assert len(set(found.values())) == len(events)
