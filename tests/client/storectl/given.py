"""What the daemon of these tests holds, and values to store."""

import json
from collections.abc import Iterator
from typing import Any

from tests.helpers.daemon import golden
from tests.offline.bases import USAGE

CANARY = "canary-7f3a"
JOB, RUN = "job1", "run1"


def setting() -> dict[str, Any]:
    values = [call for call in _calls_of_golden() if "providerConfig" in call]
    found: dict[str, Any] = json.loads(json.dumps(values[0]))
    found |= {
        "jobId": JOB,
        "runId": RUN,
        "perstackApiKey": CANARY,
        "proxyUrl": f"http://user:{CANARY}@proxy:80",
        "env": {"HOME": CANARY, "OTHER": {"deep": CANARY}},
        "providerConfig": {
            "providerName": "amazon-bedrock",
            "apiKey": CANARY,
            "accessKeyId": CANARY,
            "secret_access_key": CANARY,
            "headers": {"X-Any": CANARY},
            "nested": [{"session-token": CANARY, "credentials": {"client": CANARY}}],
        },
    }
    return found


def _calls_of_golden() -> Iterator[dict[str, Any]]:
    def within(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            yield value
            for item in value.values():
                yield from within(item)
        elif isinstance(value, list):
            for item in value:
                yield from within(item)

    return within(golden())


def event(job: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "t", "id": f"e{number}", "expertKey": "k", "timestamp": 1000 + number,
        "jobId": job, "runId": "r", "stepNumber": number,
    } | more  # fmt: skip


def job_of(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "status": "s",
        "coordinatorExpertKey": "k",
        "totalSteps": 0,
        "usage": USAGE,
        "startedAt": 1,
    }


def checkpoint_of(job: str) -> dict[str, Any]:
    return {
        "id": "c", "jobId": job, "runId": "r", "status": "s", "stepNumber": 1, "messages": [], "usage": USAGE,
        "expert": {"key": "k", "name": "n", "version": "v"},
    }  # fmt: skip
