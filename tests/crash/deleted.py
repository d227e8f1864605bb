"""What the deletions among the records of a store remove, as proto/wire.md says."""

import json
from typing import Any

from tests.crash.observed import Record

OF_JOB, OF_RUN, REDACTION = "deleteJob", "deleteRun", "redactRunSetting"
OPERATIONS = frozenset({OF_JOB, OF_RUN, REDACTION})
_SETTINGS = frozenset({"storeRunSetting", REDACTION})


class Deleted:
    """The last deletion of each job and run, and of the settings of each run."""

    def __init__(self, records: list[Record]) -> None:
        self._last: dict[tuple[str, ...], int] = {}
        for record in records:
            if record.op in OPERATIONS:
                value = json.loads(record.value)
                self._last[_key(record.op, value)] = record.position

    def last_over(self, op: str, value: bytes) -> int:
        """The position of the last deletion that removes such a value if it stands before; 0 if none does."""
        if not self._last or op in {OF_JOB, OF_RUN}:
            return 0
        found = json.loads(value)
        keys: list[tuple[str, ...]] = [(found["id" if op == "storeJob" else "jobId"],)]
        if op != "storeJob":
            keys.append((found["jobId"], found["runId"]))
        if op in _SETTINGS:
            keys.append((found["jobId"], found["runId"], "setting"))
        return max(self._last.get(key, 0) for key in keys)


def _key(op: str, value: dict[str, Any]) -> tuple[str, ...]:
    if op == OF_JOB:
        return (value["jobId"],)
    of_run = (value["jobId"], value["runId"])
    return of_run if op == OF_RUN else (*of_run, "setting")


def setting_of(redaction: bytes) -> bytes:
    """The setting in a redaction, of which it is the last member."""
    return redaction[redaction.index(b'"setting":') + len(b'"setting":') : -1]
