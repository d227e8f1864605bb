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


class Ages:
    """When jobs ended, and their last records."""

    def __init__(self) -> None:
        self._ended: dict[str, list[int]] = {}  # positions of the versions that say so
        self._last_job: dict[str, tuple[int, bool]] = {}  # the newest version: its position, and what it says
        self._events: dict[
            str, dict[bytes, tuple[int, str]]
        ] = {}  # by payload: position of the first, and run
        self._last: dict[str, int] = {}

    def take(self, value: dict[str, Any], stored: Stored) -> None:
        """Take up a record."""
        name = value["id"] if stored.kind == JOB else value["jobId"]
        self._last[name] = stored.position
        if stored.kind == JOB:
            has_ended = value["status"] == "completed"
            self._last_job[name] = stored.position, has_ended
            if has_ended:
                self._ended.setdefault(name, []).append(stored.position)
        elif stored.kind == EVENT:
            self._events.setdefault(name, {}).setdefault(stored.payload, (stored.position, value["runId"]))
        elif stored.kind == DELETION and "setting" not in value:
            known = self._events.pop(name, {})
            if "runId" in value:
                self._events[name] = {p: e for p, e in known.items() if e[1] != value["runId"]}
            else:
                self._last_job.pop(name, None)

    def had_ended(self, job: str, until: int) -> bool:
        """Whether a version of a job up to a position says that it has ended: it may have left the tree."""
        return any(position <= until for position in self._ended.get(job, ()))

    def may_be_out(self, job: str, until: int) -> bool:
        """Whether a job has ended, and has no version and no event after a position."""
        position, has_ended = self._last_job.get(job, (0, False))
        events = (first for first, _ in self._events.get(job, {}).values())
        return has_ended and max(position, *events, 0) <= until

    def is_out(self, job: str, until: int) -> bool:
        """Whether a job has ended, and nothing at all has come for it after a position."""
        return self.may_be_out(job, until) and self._last[job] <= until


class Projection:
    """Files by path, with each content that a file had on the way, in order.

    Attributes:
        dead: by path of a file that was deleted or redacted, the count of its contents before that.
        removed: path and number of each version of a checkpoint whose run was deleted; it may be an old one.
        events: position and type of each event that has a file, by path.
        ages: which jobs may have left the tree.
    """

    def __init__(self) -> None:
        self.versions: dict[str, list[bytes]] = {}
        self.dead: dict[str, int] = {}
        self.removed: set[tuple[str, int]] = set()
        self.events: dict[str, tuple[int, str]] = {}
        self.values: list[bytes] = []  # what the index has: the payloads that count now
        self.ages = Ages()
        self._settings: dict[str, tuple[bytes, float]] = {}
        self._names: dict[str, list[bytes]] = {}
        self._current: dict[str, bytes] = {}

    @property
    def files(self) -> dict[str, bytes]:
        """The files as they are at the end."""
        return {path: versions[-1] for path, versions in self.versions.items() if path in self._current}

    @property
    def jobs(self) -> set[str]:
        """Jobs that have files at the end."""
        return {path.split("/")[1] for path in self._current}

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
        self.ages.take(value, stored)
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
        for path in [path for path in self.versions if path.startswith(f"{of_job}checkpoints/")]:
            for number, payload in enumerate(self.versions[path]):
                if run is None or _is_checkpoint_of(path, payload, run):
                    self.removed.add((path, number))
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
