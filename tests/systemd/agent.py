"""An ordinary user runs it inside the container: it stores until asked to stop, through any restart.

usage: agent.py ENDPOINT JOB STOP_FILE; prints how many events it stored, each acknowledged once.
"""

import os
import sys
import time

from perstack_storage import Client

endpoint, job, stop = sys.argv[1:]
COUNT_MAX = 200_000
with Client(endpoint, timeout_s=60) as client:
    stored: list[tuple[str, int]] = []
    while not os.path.exists(stop) and len(stored) < COUNT_MAX:
        id = f"e{len(stored)}"
        position = client.store_event(
            {
                "id": id,
                "jobId": job,
                "runId": "r1",
                "type": "startRun",
                "expertKey": "me",
                "timestamp": 1_795_406_152_251 + len(stored),
                "stepNumber": 0,
            }
        )
        stored.append((id, position))
        time.sleep(0.002)
    found = [event["id"] for event in client.get_event_contents(job, "r1")]
assert found == [id for id, _ in stored], f"{len(stored)} acknowledged, {len(found)} found"
positions = [position for _, position in stored]
assert positions == sorted(set(positions)), "a position was given twice"
print(len(stored))  # noqa: T201
