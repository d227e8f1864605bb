"""Replays the captured runs: python -m tests.bench.replay_agent ENDPOINT INDEX, as agent.py otherwise."""

import json
import sys
import time

from perstack_storage import Client
from tests.helpers.daemon import captured_run, under_other_job


def main() -> None:
    """Read, wait for the start, store."""
    endpoint, index = sys.argv[1:]
    calls = [
        (
            op,
            under_other_job(
                value,
                f"{name}{index}"
                if value.get("jobId", value.get("id")) == "job1"
                else f"{name}{index}.{value.get('jobId', '')}",
            ),
        )
        for name in "abc"
        for op, value in captured_run(name)
    ]
    events = sum(op == "storeEvent" for op, _ in calls)
    with Client(endpoint, timeout_s=300) as client:
        client.ping()
        print("ready", flush=True)
        sys.stdin.readline()
        begin = time.monotonic()
        with client.pipeline() as pipeline:
            store = {
                "storeEvent": pipeline.store_event,
                "storeCheckpoint": pipeline.store_checkpoint,
                "storeJob": pipeline.store_job,
            }
            for op, value in calls:
                store[op](value)
        end = time.monotonic()
    print(json.dumps({"begin": begin, "agents": [{"count": events, "end": end, "latencies": []}]}))


if __name__ == "__main__":
    main()
