"""Trees as Perstack itself writes them, and raw questions to a daemon, with no client of ours between."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import zmq

from tests.helpers.daemon import eventually, golden
from tests.helpers.datadir import dumps

START_MS = 1_700_000_000_000


def path_of(op: str, value: dict[str, Any]) -> str:
    """Where the reference puts a value."""
    if op == "storeJob":
        return f"jobs/{value['id']}/job.json"
    if op == "storeCheckpoint":
        return f"jobs/{value['jobId']}/checkpoints/{value['id']}.json"
    run = f"jobs/{value['jobId']}/runs/{value['runId']}"
    if op == "storeRunSetting":
        return f"{run}/run-setting.json"
    return f"{run}/event-{value['timestamp']}-{value['stepNumber']}-{value['type']}.json"


def put(base: Path, path: str, content: bytes, *, written_ms: int | None = None) -> Path:
    """Write a file of the tree."""
    target = base / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if written_ms is not None:
        os.utime(target, ns=(written_ms * 1_000_000, written_ms * 1_000_000))
    return target


def store(base: Path, op: str, value: dict[str, Any], *, written_ms: int | None = None) -> Path:
    """Write a value as the reference does: over whatever has the name."""
    job = op == "storeJob"
    content = json.dumps(value, ensure_ascii=False, indent=2).encode() if job else dumps(value)
    return put(base, path_of(op, value), content, written_ms=written_ms)


def put_golden(base: Path) -> None:
    """The tree that the reference wrote."""
    for path, text in golden()["tree"].items():
        put(base, path.removeprefix("perstack/"), text.encode())


def snapshot(base: Path) -> dict[str, tuple[object, ...]]:
    """All there is below jobs/, with what would tell that somebody touched it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted((base / "jobs").rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        # The modification time of a folder changes when anything appears in it, be it for a moment.
        found[str(path.relative_to(base))] = (status.st_ino, status.st_mtime_ns, status.st_mode, content)
    return found


class Asker:
    """A REQ socket."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self._socket.connect(endpoint)

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def frame(self, op: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Header and body of an answer."""
        self._socket.send(dumps({"v": 1, "op": op, "id": 1}) + b"\n" + dumps(arguments))
        head, _, body = self._socket.recv().partition(b"\n")
        return json.loads(head), body

    def raw(self, op: str, **arguments: Any) -> bytes:
        """The whole body of an answer, pulled in parts where it is large."""
        head, body = self.frame(op, arguments)
        assert head["ok"], head
        bodies = [body]
        while "more" in head:
            head, body = self.frame("readPart", head["more"])
            assert head["ok"], head
            bodies.append(body)
        return b"".join(bodies)

    def ask(self, op: str, **arguments: Any) -> Any:
        """An answer."""
        return json.loads(self.raw(op, **arguments))

    def records(self) -> list[tuple[int, str, Any]]:
        """Every record: position, operation and value."""
        found: list[tuple[int, str, Any]] = []
        after = 0
        while True:
            rows = self.ask("readAll", after=after, limit=10_000)
            if not rows:
                return found
            found += [(row["position"], row["op"], row["value"]) for row in rows]
            after = rows[-1]["position"]

    def await_tree(self) -> None:
        """Until the tree has been brought up to the journal, and is synced."""

        def done() -> bool:
            stats = self.ask("stats")
            return bool(stats["tree"]["position"] == stats["position"])

        eventually(done, "the tree has followed", 240)


def answers(asker: Asker, runs: list[tuple[str, str]]) -> dict[str, bytes]:
    """What every read answers, byte for byte."""
    found = {op: asker.raw(op) for op in ("getAllJobs", "getAllRuns")}
    for job in {job for job, _ in runs}:
        found[f"job {job}"] = asker.raw("retrieveJob", jobId=job)
        found[f"checkpoints {job}"] = asker.raw("getCheckpointsByJobId", jobId=job)
    for job, run in runs:
        found[f"events {job} {run}"] = asker.raw("getEventsByRun", jobId=job, runId=run)
        found[f"contents {job} {run}"] = asker.raw("getEventContents", jobId=job, runId=run)
    return found
