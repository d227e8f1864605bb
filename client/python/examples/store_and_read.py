"""Stores a job and the events of a run, and reads them back.

The daemon is that of ./perstack, or the one that PERSTACK_STORED_BASE or PERSTACK_STORED_ENDPOINT names.
"""

import time
from typing import Any

from perstack_storage import Client, create_initial_job

RUN = {"jobId": "job-1", "runId": "run-1", "expertKey": "@acme/writer@1.0.0"}


def event(step: int, type: str, **more: Any) -> dict[str, Any]:
    """Returns an event of the run."""
    now_ms = time.time_ns() // 1_000_000
    return {"id": f"event-{step}", "type": type, "stepNumber": step, "timestamp": now_ms, **RUN, **more}


with Client() as client:
    client.store_job(create_initial_job("job-1", "@acme/writer@1.0.0", max_steps=10))
    client.store_event(event(0, "startRun"))
    position = client.store_event(event(1, "completeRun", text="Hello."))
    print(f"on disk up to position {position}")

    job = client.retrieve_job("job-1")
    print("job", job["status"] if job else "unknown")
    for stored in client.get_event_contents("job-1", "run-1"):
        print(stored["stepNumber"], stored["type"])
