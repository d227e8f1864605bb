"""Bases with some of everything, as a start finds them, and what can be read from them."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw, checkpoint, event, job, session, setting


def settled_tree(raw: Raw) -> bool:
    """Whether the tree has come to the journal's end."""
    stats = raw.ask("stats").value
    return bool(stats["tree"]["position"] == stats["position"])


def assert_checked(base: Path) -> None:
    """The offline check finds journal, index and tree in agreement."""
    checked = commands.run("check", "--base-path", str(base))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def refusal(base: Path, *arguments: str, status: int = 78, **environment: str) -> str:
    """A start that must fail; the reason in its log."""
    daemon = RunningDaemon(base, *arguments, environment=environment).start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(timeout=120) == status, daemon.log.read_text()
    assert b"Traceback" not in daemon.log.read_bytes(), daemon.log.read_text()
    return str(daemon.events("failed")[-1]["reason"])


def fill(raw: Raw) -> None:
    """Some of everything."""
    name = session()
    for n in range(60):
        values = [
            ("storeEvent", event(f"e{n}", jobId=f"j{n % 5}", timestamp=n // 7, stepNumber=n % 3)),
            ("storeCheckpoint", checkpoint(f"c{n % 9}", jobId=f"j{n % 5}", stepNumber=n)),
            ("storeJob", job(f"j{n % 5}", totalSteps=n)),
            ("storeRunSetting", setting(f"r{n % 4}", jobId=f"j{n % 5}")),
        ]
        for k, (op, value) in enumerate(values):
            raw.store(op, value, session=name, seq=4 * n + k + 1)


def answers(raw: Raw) -> dict[str, Any]:
    """Everything that can be read."""
    found = {op: raw.read(op) for op in ("getAllJobs", "getAllRuns", "readAll")}
    for n in range(5):
        found[f"checkpoints{n}"] = raw.read("getCheckpointsByJobId", {"jobId": f"j{n}"})
        run = {"jobId": f"j{n}", "runId": "r1"}
        found[f"events{n}"] = raw.read("getEventsByRun", run)
        found[f"contents{n}"] = raw.read("getEventContents", run)
    return found


class Filled(NamedTuple):
    """Two bases with the same journal: one whose daemon was killed, and one whose daemon stopped in order."""

    killed: Path
    stopped: Path
    answers: dict[str, Any]
    files: dict[str, bytes]

    def copy(self, target: Path, *, killed: bool = False) -> Path:
        """A base that a test may change."""
        source = self.killed if killed else self.stopped
        return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock")))
