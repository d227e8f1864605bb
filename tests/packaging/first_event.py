"""A new user's first minute: stores an event, and reads it back from another process than the daemon.

usage: first_event.py [ENDPOINT]; prints the position.
"""

import sys
from typing import Any

from perstack_storage import Client

event: dict[str, Any] = {
    "id": "e1",
    "jobId": "job-1",
    "runId": "run-1",
    "type": "startRun",
    "expertKey": "me",
    "timestamp": 1_795_406_152_251,
    "stepNumber": 0,
}
with Client(*sys.argv[1:]) as client:
    position = client.store_event(event)
    assert client.get_event_contents("job-1", "run-1") == [event]
print(position)  # noqa: T201
