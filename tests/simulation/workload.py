"""What the clients of a simulated history store: from a seed, with names that collide, files rewritten."""

import json
from random import Random
from typing import Any, NamedTuple

KINDS = {
    "storeJob": 1, "storeCheckpoint": 2, "storeEvent": 3, "storeRunSetting": 4, "deleteJob": 6,
    "deleteRun": 6, "redactRunSetting": 6,
}  # fmt: skip
_USAGE = dict.fromkeys(
    ("inputTokens", "outputTokens", "reasoningTokens", "totalTokens", "cachedInputTokens"), 1
)


class Value(NamedTuple):
    """One value to be stored: its operation and its bytes."""

    op: str
    payload: bytes


def op_of(kind: int, payload: bytes) -> str:
    """The operation that stores a record."""
    if kind == KINDS["deleteJob"]:
        found = json.loads(payload)
        return "redactRunSetting" if "setting" in found else "deleteRun" if "runId" in found else "deleteJob"
    return next((op for op, known in KINDS.items() if known == kind), "?")


def job_of(value: Value) -> str:
    """The job that a value belongs to."""
    found = json.loads(value.payload)
    return str(found["id"] if value.op == "storeJob" else found["jobId"])


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Workload:
    """Values without end. No two have the same bytes, unless an event is meant to be a repeat."""

    def __init__(self, random: Random, *, ends_jobs: int = 0) -> None:
        """With `ends_jobs`, a version of a job says that it has ended, unless its number divides by that."""
        self._random = random
        self._made = 0
        self._ends_jobs = ends_jobs
        self._events: list[Value] = []

    def value(self) -> Value:
        """The next value."""
        random = self._random
        self._made += 1
        kind = random.random()
        if kind < 0.6:
            return self._event()
        names = self._names()
        if kind < 0.75:
            fields = {"id": names["jobId"], "n": self._made, "pad": self._pad()}
            if self._ends_jobs and self._made % self._ends_jobs:
                fields["status"] = "completed"
            return Value("storeJob", dumps(job(**fields)))
        if kind < 0.9:
            fields = {"id": f"cp{random.randrange(2)}", "n": self._made, "pad": self._pad()}
            return Value("storeCheckpoint", dumps(checkpoint(**names, **fields)))
        return Value("storeRunSetting", dumps(setting(**names, n=self._made, updatedAt=self._made)))

    def bad_value(self) -> Value:
        """A value that is refused."""
        self._made += 1
        return Value("storeEvent", dumps(event(id=f"bad{self._made}", stepNumber=-1)))

    def deletion(self) -> Value:
        """A deletion of a job, or of a run, or a redaction of its settings."""
        names = self._names()
        kind = self._random.random()
        if kind < 0.4:
            return Value("deleteJob", dumps({"jobId": names["jobId"]}))
        if kind < 0.8:
            return Value("deleteRun", dumps(names))
        self._made += 1
        redacted = setting(**names, n=self._made, updatedAt=self._made)
        return Value("redactRunSetting", dumps({**names, "setting": redacted}))

    def _event(self) -> Value:
        random = self._random
        if self._events and random.random() < 0.1:
            return random.choice(self._events)
        fields = {
            "id": f"e{self._made}",
            "timestamp": random.choice([1000, 1000, 1001, 1001.5, 1002]),
            "type": random.choice(["a", "b"]),
            "pad": self._pad(),
        }
        value = Value("storeEvent", dumps(event(**self._names(), **fields)))
        self._events.append(value)
        return value

    def _names(self) -> dict[str, str]:
        random = self._random
        return {"jobId": f"j{random.randrange(2)}", "runId": f"r{random.randrange(2)}"}

    def _pad(self) -> str:
        random = self._random
        size = random.choice([0, 10, 100, 400]) if random.random() < 0.9 else random.choice([1500, 5000])
        # Entry and segment magics inside of values must never be taken for the real ones.
        return (
            ("PSE1" * (size // 4 + 1))[:size] if random.random() < 0.3 else chr(97 + self._made % 26) * size
        )


def job(**fields: Any) -> dict[str, Any]:
    return {
        "id": "j0", "status": "running", "coordinatorExpertKey": "x", "totalSteps": 0, "startedAt": 1,
        "usage": _USAGE,
    } | fields  # fmt: skip


def checkpoint(**fields: Any) -> dict[str, Any]:
    return {
        "id": "cp", "jobId": "j0", "runId": "r0", "status": "init", "stepNumber": 1, "messages": [],
        "expert": {"key": "x@1", "name": "x", "version": "1"}, "usage": _USAGE,
    } | fields  # fmt: skip


def event(**fields: Any) -> dict[str, Any]:
    return {
        "type": "a", "id": "e", "expertKey": "x", "timestamp": 1000, "jobId": "j0", "runId": "r0",
        "stepNumber": 0,
    } | fields  # fmt: skip


def setting(**fields: Any) -> dict[str, Any]:
    return {
        "jobId": "j0", "runId": "r0", "model": "m", "providerConfig": {}, "expertKey": "x", "input": {},
        "experts": {}, "maxRetries": 1, "timeout": 1, "startedAt": 1, "updatedAt": 1,
        "perstackApiBaseUrl": "u", "env": {},
    } | fields  # fmt: skip
