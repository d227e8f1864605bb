"""An agent of test_ring.py on a Python client, as ring_agent.mjs is one on the TypeScript client."""

import json
import sys
from typing import Any

from perstack_storage import Client
from tests.client.behaviour.adapter import BlockingClient


class Agent:
    """Stores values of its own, and looks for those of its neighbour."""

    def __init__(self, client: Client, given: dict[str, Any]) -> None:
        self._client = client
        self._me, self._neighbour = given["me"], given["neighbour"]
        self._rounds, self._values = given["rounds"], given["values"]

    def store(self, n: int) -> None:
        client, values = self._client, self._values
        ids = {"jobId": self._me, "runId": f"r{n}"}
        if n % 4 == 0:
            client.store_event(values["event"] | ids | {"runId": "r", "id": f"e{n}"})
        elif n % 4 == 1:
            client.store_job(values["job"] | {"id": self._me, "totalSteps": n})
        elif n % 4 == 2:
            client.store_checkpoint(values["checkpoint"] | ids | {"id": f"c{n}"})
        else:
            client.store_run_setting(values["setting"] | ids)
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()

    def is_there(self, n: int) -> bool:
        """Whether it can be read; the neighbour may have gone on meanwhile."""
        client, neighbour = self._client, self._neighbour
        if n % 4 == 0:
            return any(found["id"] == f"e{n}" for found in client.get_event_contents(neighbour, "r"))
        if n % 4 == 1:
            job = client.retrieve_job(neighbour)
            return job is not None and job["totalSteps"] >= n
        if n % 4 == 2:
            return client.retrieve_checkpoint(neighbour, f"c{n}")["id"] == f"c{n}"
        return any(run["jobId"] == neighbour and run["runId"] == f"r{n}" for run in client.get_all_runs())

    def run(self) -> None:
        self.store(0)
        for n in range(self._rounds):
            told = int(sys.stdin.readline())
            if told != n or not self.is_there(n):
                raise AssertionError(f"{self._me} does not see number {n} of {self._neighbour}")
            self.store(n + 1)


def main() -> None:
    kind, endpoint = sys.argv[1:]
    client: Any = Client(endpoint) if kind == "sync" else BlockingClient(endpoint)
    with client:
        Agent(client, json.loads(sys.stdin.readline())).run()


if __name__ == "__main__":
    main()
