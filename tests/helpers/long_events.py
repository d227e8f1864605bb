"""Events of about 1 KB, which fill segments."""

from typing import Any

from perstack_storage import Client

_WORDS = "these are the words of a long conversation, "


def event(name: str, n: int, *, words: int = 20) -> dict[str, Any]:
    """An event of the job `name`; its text repeats 44 bytes `words` times."""
    return {
        "type": "streamReasoning",
        "id": f"{name}-{n}",
        "expertKey": "me",
        "timestamp": 1700000000000 + n,
        "jobId": name,
        "runId": "r1",
        "stepNumber": 1,
        "delta": f"{n} {_WORDS * words}",
    }


def store(endpoint: str, name: str, count: int, *, words: int = 20) -> None:
    """Store that many events of a job."""
    with Client(endpoint) as client, client.pipeline() as pipeline:
        for n in range(count):
            pipeline.store_event(event(name, n, words=words))
