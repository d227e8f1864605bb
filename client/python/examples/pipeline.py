"""Stores many events that don't wait for each other. All are on disk when the block ends."""

import time

from perstack_storage import Client, Refused

EVENTS = 1_000

with Client() as client:
    begun = time.perf_counter()
    pipeline = client.pipeline()
    try:
        with pipeline:
            for number in range(EVENTS):
                pipeline.store_event(
                    {
                        "id": f"delta-{number}",
                        "type": "streamReasoning",
                        "stepNumber": 1,
                        "timestamp": time.time_ns() // 1_000_000,
                        "delta": "…",
                        "jobId": "job-2",
                        "runId": "run-1",
                        "expertKey": "@acme/writer@1.0.0",
                    }
                )
    except Refused as error:  # the first one; the others were stored all the same
        print(error)
    seconds = time.perf_counter() - begun
    stored = [position for position in pipeline.positions if position is not None]
    print(f"{len(stored)} events on disk, {len(stored) / seconds:.0f} a second")
