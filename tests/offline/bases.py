"""Bases with something of each kind in them, and the command run on them."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zmq

from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.index import events_to_rows

# The least that the daemon takes: a few hundred KB make several segments.
SMALL_SEGMENTS = ("--segment-bytes", str(1 << 20), "--first-segment-bytes", str(64 << 10))
USAGE = {
    "inputTokens": 1,
    "outputTokens": 2,
    "reasoningTokens": 0,
    "totalTokens": 3,
    "cachedInputTokens": 0,
}
SECRETS = ("sk-provider", "sk-perstack", "aws-secret", "Bearer header", "env-value", "proxy-password")

Call = tuple[str, bytes]


def as_call(op: str, value: dict[str, Any]) -> Call:
    return op, json.dumps(value, ensure_ascii=False).encode()


def job(id: str = "j1", **fields: Any) -> Call:
    value = {"id": id, "status": "running", "coordinatorExpertKey": "@me/a@1.0.0", "totalSteps": 1}
    return as_call("storeJob", {**value, "usage": USAGE, "startedAt": 1700000000000, **fields})


def checkpoint(id: str = "c1", **fields: Any) -> Call:
    expert = {"key": "@me/a@1.0.0", "name": "@me/a", "version": "1.0.0"}
    value = {"id": id, "jobId": "j1", "runId": "r1", "status": "proceeding", "stepNumber": 1, "messages": []}
    return as_call("storeCheckpoint", {**value, "expert": expert, "usage": USAGE, **fields})


def event(id: str = "e1", **fields: Any) -> Call:
    value = {"type": "startRun", "id": id, "expertKey": "me", "timestamp": 1700000000001, "jobId": "j1"}
    return as_call("storeEvent", {**value, "runId": "r1", "stepNumber": 0, **fields})


def setting(**fields: Any) -> Call:
    provider = {
        "providerName": "amazon-bedrock",
        "apiKey": "sk-provider",
        "secretAccessKey": "aws-secret",
        "headers": {"Authorization": "Bearer header"},
        "region": "eu-central-1",
    }
    value: dict[str, Any] = {"jobId": "j1", "runId": "r1", "model": "m", "expertKey": "me"}
    value |= {"providerConfig": provider}
    value |= {"input": {"text": "hello"}, "experts": {}, "env": {"SOME": "env-value"}, "maxRetries": 3}
    value |= {"timeout": 1000, "startedAt": 1700000000000, "updatedAt": 1700000000000}
    value |= {"perstackApiBaseUrl": "https://api.example", "perstackApiKey": "sk-perstack"}
    return as_call("storeRunSetting", {**value, "proxyUrl": "http://me:proxy-password@proxy:8080", **fields})


def one_of_each() -> list[Call]:
    """Twenty records: values stored again, names that collide, ids of all kinds."""
    return [
        setting(),
        job(),
        event("e1"),
        event("e2"),  # the same file name, another event
        event("e1"),  # the same event once more
        event("e3", note="the third of that name"),
        event("e4", timestamp=1700000000001.5),
        event("e5", stepNumber=1, type="stream-Reasoning"),
        checkpoint("c1"),
        checkpoint("c2", stepNumber=2, messages=[{"text": "x" * 50_000}]),
        checkpoint("c1", status="completed"),
        job(status="completed", finishedAt=1700000009999),
        setting(model="not taken over"),
        job("jöb 🚀", totalSteps=7),
        event("ä", jobId="jöb 🚀", runId="rün"),
        checkpoint("ç", jobId="jöb 🚀", runId="rün"),
        setting(jobId="jöb 🚀", runId="rün"),
        (
            "storeEvent",
            event("e6", stepNumber=2)[1].replace(b'"e6"', b'"e6", "big": 1e400, "lone": "\\ud800"'),
        ),
        ("storeJob", job("spaced")[1].replace(b", ", b" ,\n\t")),
        event("alone", jobId="events only"),
    ]


def store(endpoint: str, calls: Iterable[Call]) -> list[int]:
    """Store one after the other, without a session; returns the positions."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(endpoint)
        positions = []
        for id, (op, value) in enumerate(calls):
            socket.send(json.dumps({"v": 1, "op": op, "id": id}).encode() + b"\n" + value)
            answer = json.loads(socket.recv().split(b"\n", 1)[0])
            assert answer["ok"], answer
            positions.append(answer["position"])
    return positions


def read(endpoint: str, op: str, **arguments: Any) -> bytes:
    """Body of an answer, joined if it comes in parts."""
    pieces = []
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(endpoint)
        while True:
            head = {"v": 1, "op": op, "id": 1}
            socket.send(json.dumps(head).encode() + b"\n" + json.dumps(arguments).encode())
            header, _, body = socket.recv().partition(b"\n")
            fields = json.loads(header)
            assert fields["ok"], fields
            pieces.append(body)
            if "more" not in fields:
                return b"".join(pieces)
            op, arguments = "readPart", fields["more"]


def answers(daemon: RunningDaemon) -> dict[str, bytes]:
    """What the daemon answers to reads of everything in `one_of_each`."""
    run = {"jobId": "j1", "runId": "r1"}
    other = {"jobId": "jöb 🚀", "runId": "rün"}
    reads: list[tuple[str, dict[str, Any]]] = [
        ("getAllJobs", {}),
        ("getAllRuns", {}),
        ("readAll", {}),
        ("retrieveJob", {"jobId": "j1"}),
        ("getCheckpointsByJobId", {"jobId": "j1"}),
        ("getEventsByRun", run),
        ("getEventContents", run),
        ("getEventContents", other),
        ("getCheckpointsByJobId", {"jobId": other["jobId"]}),
    ]
    return {f"{op} {arguments}": read(daemon.endpoint, op, **arguments) for op, arguments in reads}


def make_base(base: Path, calls: Iterable[Call]) -> None:
    """A base whose daemon stopped in order."""
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, calls)
        # On a busy machine the tree may be behind when the time to stop is over.
        eventually(
            lambda: json.loads(read(daemon.endpoint, "stats"))["tree"]["lagRecords"] == 0, "the tree", 60
        )
        assert daemon.stop() == 0


def make_base_of_segments(base: Path) -> None:
    """The same, with four segments: each start after a crash begins a new one."""
    calls = one_of_each()
    for part in (calls[:5], calls[5:12], calls[12:15]):
        with running_daemon(base, *SMALL_SEGMENTS) as daemon:
            store(daemon.endpoint, part)
            daemon.kill()
    make_base(base, calls[15:])
    assert len(segments(base)) == 4


def segments(base: Path) -> list[Path]:
    return sorted((base / ".stored/journal").glob("*.segment"))


def copy_base(base: Path, target: Path) -> Path:
    """A copy to be damaged. A socket can't be copied."""
    return Path(shutil.copytree(base, target, symlinks=True, ignore=shutil.ignore_patterns("*.sock")))


def run(command: str, base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `perstack-stored` on a base."""
    return commands.run(command, "--base-path", str(base), *arguments)


class Checked:
    """What `check --json` says of a base."""

    def __init__(self, base: Path) -> None:
        self.process = run("check", base, "--json")
        self.status = self.process.returncode
        assert "Traceback" not in self.process.stderr, self.process.stderr
        lines = [json.loads(line) for line in self.process.stdout.splitlines()]
        self.summary = lines.pop() if lines else {}
        self.findings = [line for line in lines if not line["note"]]
        self.notes = [line for line in lines if line["note"]]

    @property
    def names(self) -> set[str]:
        return {line["name"] for line in self.findings}

    @property
    def note_names(self) -> set[str]:
        return {line["name"] for line in self.notes}

    def only(self, name: str) -> dict[str, Any]:
        """The one line of this name, of those found."""
        (found,) = (line for line in (*self.findings, *self.notes) if line["name"] == name)
        return dict(found)


def change_index(base: Path, *statements: str) -> None:
    """Change rows of the index without the daemon's knowledge."""
    database = sqlite3.connect(base / ".stored/index.sqlite")
    events_to_rows(database)
    for statement in statements:
        assert database.execute(statement).rowcount, f"no row was changed by {statement}"
    database.commit()
    database.close()


def contents(base: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a base, with its time of change."""
    return {
        str(path.relative_to(base)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }


def unlocked(base: Path) -> dict[str, bytes]:
    """All files of a base; the lock says who held it last."""
    return {name: content for name, (_, content) in contents(base).items() if name != ".stored/lock"}
