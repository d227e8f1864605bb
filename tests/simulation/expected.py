"""The tree and the index that must result from a journal, without any code of the daemon."""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.simulation.workload import dumps

JOB, CHECKPOINT, EVENT, SETTING, GAP, DELETION = range(1, 7)
IMPORTED = 1


class Stored(NamedTuple):
    """A record of the journal."""

    position: int
    session: bytes
    seq: int
    kind: int
    flags: int
    time_ms: int
    payload: bytes


class Projection:
    """Files by path, with each content that a file had on the way, in order.

    Attributes:
        dead: by path of a file that was deleted or redacted, the count of its contents before that.
        events: position and type of each event that has a file, by path.
    """

    def __init__(self) -> None:
        self.versions: dict[str, list[bytes]] = {}
        self.dead: dict[str, int] = {}
        self.events: dict[str, tuple[int, str]] = {}
        self.values: list[bytes] = []  # what the index has: the payloads that count now
        self._settings: dict[str, tuple[bytes, float]] = {}
        self._names: dict[str, list[bytes]] = {}
        self._current: dict[str, bytes] = {}

    @property
    def files(self) -> dict[str, bytes]:
        """The files as they are at the end."""
        return {path: versions[-1] for path, versions in self.versions.items() if path in self._current}

    @property
    def payloads(self) -> list[bytes]:
        """The payload that stands for each file at the end, sorted."""
        return sorted(self._current.values())

    def extend(self, records: Iterable[Stored]) -> None:
        """Take up records."""
        for stored in records:
            self._take(stored)

    def _take(self, stored: Stored) -> None:
        value = json.loads(stored.payload)
        if stored.kind == JOB:
            text = json.dumps(value, indent=2).encode()
            self._put(f"jobs/{value['id']}/job.json", text, stored.payload)
        elif stored.kind == CHECKPOINT:
            path = f"jobs/{value['jobId']}/checkpoints/{value['id']}.json"
            self._put(path, stored.payload, stored.payload)
        elif stored.kind == DELETION and "setting" in value:
            self._redact(value["setting"])
        elif stored.kind == DELETION:
            self._delete(value["jobId"], value.get("runId"))
        elif stored.kind == EVENT:
            self._event(value, stored)
        else:
            self._setting(value, stored)

    def _delete(self, job: str, run: str | None) -> None:
        of_job = f"jobs/{job}/"
        of_run = f"{of_job}runs/{run}/"
        for path, payload in list(self._current.items()):
            if not path.startswith(of_job):
                continue
            if run is None or path.startswith(of_run) or _is_checkpoint_of(path, payload, run):
                del self._current[path]
                self.dead[path] = len(self.versions[path])
        folder = of_job if run is None else of_run
        for stem in [stem for stem in self._names if stem.startswith(folder)]:
            del self._names[stem]
        for path in [path for path in self._settings if path.startswith(folder)]:
            del self._settings[path]

    def _redact(self, setting: dict[str, Any]) -> None:
        path = f"jobs/{setting['jobId']}/runs/{setting['runId']}/run-setting.json"
        if path in self.versions:
            self.dead[path] = len(self.versions[path])
        text = dumps(setting)
        self._settings[path] = (text, setting["updatedAt"])
        self._put(path, text, text)

    def _put(self, path: str, content: bytes, payload: bytes) -> None:
        self.versions.setdefault(path, []).append(content)
        self._current[path] = payload

    def _event(self, value: dict[str, object], stored: Stored) -> None:
        payload = stored.payload
        timestamp = value["timestamp"]
        assert isinstance(timestamp, int | float)
        folder = f"jobs/{value['jobId']}/runs/{value['runId']}"
        stem = f"{folder}/event-{int(timestamp)}-{value['stepNumber']}-{value['type']}"
        twins = self._names.setdefault(stem, [])
        if payload in twins:
            return
        twins.append(payload)
        n = len(twins)
        path = f"{stem}.json" if n == 1 else f"{stem}.n{n:04d}.json"
        self.events[path] = stored.position, str(value["type"])
        self._put(path, payload, payload)

    def _setting(self, value: dict[str, object], stored: Stored) -> None:
        path = f"jobs/{value['jobId']}/runs/{value['runId']}/run-setting.json"
        known = self._settings.get(path)
        if known is None or stored.flags & IMPORTED:
            updated_at = value["updatedAt"]
            assert isinstance(updated_at, int | float)
            self._settings[path] = (stored.payload, updated_at)
            self._put(path, stored.payload, stored.payload)
            return
        first, sent_at = known
        # Where a clock was put right, the daemon's time goes back, and this time with it.
        updated_at = max(sent_at, stored.time_ms)
        text = re.sub(rb'"updatedAt":\d+', b'"updatedAt":%d' % updated_at, first)
        self._put(path, text, first)


def _is_checkpoint_of(path: str, payload: bytes, run: str) -> bool:
    return path.split("/")[2] == "checkpoints" and json.loads(payload)["runId"] == run
