"""What tree and reads must be, made from the records of `readAll` alone, as wire.md and tree.md say."""

import json
import re
from collections import defaultdict
from typing import Any

from tests.crash.deleted import OF_JOB, OF_RUN, REDACTION, setting_of
from tests.crash.observed import Observer, Record

_UPDATED_AT = re.compile(rb'("updatedAt":)[0-9.]+')
_EVENT_FIELDS = ("timestamp", "stepNumber", "type")


class Projection:
    """Jobs, checkpoints, settings and events as they count in the end."""

    def __init__(self, records: list[Record]) -> None:
        self.jobs: dict[str, bytes] = {}
        self.checkpoints: dict[str, dict[str, tuple[int, bytes]]] = defaultdict(dict)
        self._first_settings: dict[tuple[str, str], bytes] = {}
        self.settings: dict[tuple[str, str], bytes] = {}
        self.deleted: set[tuple[str, str | None]] = set()
        self.events: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        for record in records:
            self._take(record, json.loads(record.value))

    def _take(self, record: Record, value: dict[str, Any]) -> None:
        match record.op:
            case "storeJob":
                self.jobs[value["id"]] = record.value
            case "storeCheckpoint":
                self.checkpoints[value["jobId"]][value["id"]] = (record.position, record.value)
            case "storeRunSetting":
                self._setting((value["jobId"], value["runId"]), record)
            case "storeEvent":
                self.events[value["jobId"], value["runId"]].append(record.value)
            case op if op == REDACTION:
                setting = setting_of(record.value)
                key = (value["jobId"], value["runId"])
                self._first_settings[key] = self.settings[key] = setting
            case op if op in {OF_JOB, OF_RUN}:
                self.deleted.add((value["jobId"], value.get("runId")))  # the records are gone already
            case other:
                raise ValueError(f"no such operation: {other}")

    def _setting(self, key: tuple[str, str], record: Record) -> None:
        """The first one counts, with the daemon's time of the last one as `updatedAt`, if that is later.

        The daemon's time goes back where a clock was put right.
        """
        first = self._first_settings.setdefault(key, record.value)
        if key not in self.settings:
            self.settings[key] = first
            return
        updated_at = max(json.loads(first)["updatedAt"], record.time)
        self.settings[key] = _UPDATED_AT.sub(b"\\g<1>%d" % updated_at, first)

    def files(self) -> dict[str, bytes]:
        """Path and content of every file of the tree."""
        files = {
            f"jobs/{id}/job.json": json.dumps(json.loads(value), indent=2, ensure_ascii=False).encode()
            for id, value in self.jobs.items()
        }
        for job, checkpoints in self.checkpoints.items():
            files |= {f"jobs/{job}/checkpoints/{id}.json": value for id, (_, value) in checkpoints.items()}
        for (job, run), value in self.settings.items():
            files[f"jobs/{job}/runs/{run}/run-setting.json"] = value
        for (job, run), events in self.events.items():
            names: dict[str, int] = defaultdict(int)
            for value in events:
                event = json.loads(value)
                name = f"event-{int(event['timestamp'])}-{event['stepNumber']}-{event['type']}"
                names[name] += 1
                twin = "" if names[name] == 1 else f".n{names[name]:04d}"
                files[f"jobs/{job}/runs/{run}/{name}{twin}.json"] = value
        return files

    def wrong_answers(self, observer: Observer) -> list[str]:
        """Ask everything that the protocol answers, and name each answer that is not as it must be."""
        jobs = [json.loads(value) for value in self.jobs.values()]
        jobs.sort(key=lambda job: job["id"])
        jobs.sort(key=lambda job: job["startedAt"], reverse=True)
        runs = [_with_defaults(json.loads(value)) for value in self.settings.values()]
        runs.sort(key=lambda run: (run["jobId"], run["runId"]))
        runs.sort(key=lambda run: run["updatedAt"], reverse=True)
        wrong = []

        def expect(answer: Any, op: str, **arguments: Any) -> None:
            if observer.value(op, **arguments) != answer:
                wrong.append(f"{op} {arguments}")

        expect(jobs, "getAllJobs")
        expect(runs, "getAllRuns")
        for job in jobs:
            expect(job, "retrieveJob", jobId=job["id"])
        for id, checkpoints in self.checkpoints.items():
            in_order = [json.loads(value) for _, value in sorted(checkpoints.values())]
            in_order.sort(key=lambda checkpoint: checkpoint["stepNumber"])
            expect(in_order, "getCheckpointsByJobId", jobId=id)
            for checkpoint in in_order:
                expect(checkpoint, "retrieveCheckpoint", jobId=id, checkpointId=checkpoint["id"])
        for job_id, run_id in self.deleted:
            if run_id is None and job_id not in self.jobs:
                expect(None, "retrieveJob", jobId=job_id)
            elif run_id is not None and (job_id, run_id) not in self.events:
                expect([], "getEventContents", jobId=job_id, runId=run_id)
        for (job_id, run_id), values in self.events.items():
            events = [json.loads(value) for value in values]
            by_time = sorted(events, key=lambda event: event["timestamp"])
            expect(by_time, "getEventContents", jobId=job_id, runId=run_id)
            by_step = sorted(events, key=lambda event: event["stepNumber"])
            metas = [{name: event[name] for name in _EVENT_FIELDS} for event in by_step]
            expect(metas, "getEventsByRun", jobId=job_id, runId=run_id)
        return wrong


def _with_defaults(setting: dict[str, Any]) -> dict[str, Any]:
    return {"reasoningBudget": "low", "maxSteps": 100} | setting
