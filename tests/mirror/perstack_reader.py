"""Reads a bucket as Perstack's own S3 storage does: by its keys alone, each object by itself.

Keys are split as there: the last five characters of an event's are cut off, and the rest is split at "-".
"""

import json
from collections.abc import Iterator
from typing import Any

_SUFFIX = len(".json")


class PerstackReader:
    """What the objects below a prefix say. Values are as in the objects."""

    def __init__(self, objects: dict[str, bytes], prefix: str) -> None:
        self._objects = {
            key.removeprefix(f"{prefix}/jobs/"): data
            for key, data in objects.items()
            if key.startswith(f"{prefix}/jobs/")
        }

    def _below(self, folder: str) -> Iterator[tuple[str, bytes]]:
        for key, data in sorted(self._objects.items()):
            if key.startswith(folder):
                yield key.removeprefix(folder), data

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the one that began last first."""
        found = [json.loads(data) for key, data in self._objects.items() if key.endswith("/job.json")]
        return sorted(found, key=lambda job: -job["startedAt"])

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """The checkpoints of a job, by step."""
        found = [json.loads(data) for _, data in self._below(f"{job_id}/checkpoints/")]
        return sorted(found, key=lambda checkpoint: checkpoint["stepNumber"])

    def settings(self) -> list[dict[str, Any]]:
        """All run settings, the one updated last first."""
        found = [_setting(data) for key, data in self._objects.items() if key.endswith("/run-setting.json")]
        return sorted(found, key=lambda setting: -setting["updatedAt"])

    def setting(self, job_id: str, run_id: str) -> dict[str, Any]:
        """The setting of a run, by its key."""
        return _setting(self._objects[f"{job_id}/runs/{run_id}/run-setting.json"])

    def events(self, job_id: str, run_id: str) -> list[tuple[float, float, str, dict[str, Any]]]:
        """Time, step and type of each event of a run, from its key, and the event; by time."""
        found = []
        for name, data in self._below(f"{job_id}/runs/{run_id}/event-"):
            time, step, *type = name[:-_SUFFIX].split("-")
            found.append((_number(time), _number(step), "-".join(type), json.loads(data)))
        return sorted(found, key=lambda event: event[0])


def _number(text: str) -> float:
    """A number as JavaScript has it: a double, which is shown without a fraction if it has none."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _setting(data: bytes) -> dict[str, Any]:
    return {"maxSteps": 100, "reasoningBudget": "low", **json.loads(data)}  # as Perstack's schema fills in
