"""Jobs of many runs that delegate to each other."""

from typing import Any

from tests.inspector.runs import Call, usage

COORDINATOR = "@acme/coordinator@1.0.0"


def _run(job: str, number: int, parent: int | None, at: int, *, fails: bool) -> list[Call]:
    """A run of two events, without a checkpoint of its own."""
    expert = f"@acme/worker-{number % 5}@1.0.0" if number else COORDINATOR
    first: dict[str, Any] = {"usage": usage(0)}
    if parent is not None:
        first["delegatedBy"] = {"runId": f"run-{parent}", "toolCallId": f"call-{number}"}
    base = {"jobId": job, "runId": f"run-{number}", "expertKey": expert, "stepNumber": 1}
    error = {"error": {"name": "Broken", "message": f"run {number}"}} if fails else {}
    type = "stopRunByError" if fails else "completeRun"
    end = {"checkpoint": {"usage": usage(100 * number)}, **error}
    return [
        ("storeEvent", {**base, "id": f"{job}-{number}", "type": "startRun", "timestamp": at,
                        "initialCheckpoint": first}),
        ("storeEvent", {**base, "id": f"{job}-{number}-end", "type": type, "timestamp": at + 3000, **end}),
    ]  # fmt: skip


def fan_out(job: str, runs: int, start: int) -> list[Call]:
    """A run that delegates to most others, some of which delegate to the rest; each eleventh fails."""
    calls: list[Call] = []
    for number in range(runs):
        below = number % 7 + 1 if number > runs * 0.6 else 0
        parent = None if number == 0 else below
        calls += _run(job, number, parent, start + 50 * number, fails=number > 0 and number % 11 == 0)
    return calls


def chain(job: str, runs: int, start: int, *, ring: bool = False) -> list[Call]:
    """Runs of which each delegates to the next one; in a ring the last one to the first."""
    calls: list[Call] = []
    for number in range(runs):
        parent = number - 1 if number else runs - 1 if ring else None
        calls += _run(job, number, parent, start + 50 * number, fails=False)
    return calls
