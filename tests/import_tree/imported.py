"""`import` of another tree into a base: what it says, and what the base holds then."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.daemon import running_daemon
from tests.helpers.datadir import checkpoint, job, setting
from tests.import_tree.trees import Asker
from tests.offline.bases import run

LONG_AGO_MS = 1_600_000_000_000


class Imported:
    """What `import --json` says."""

    def __init__(self, base: Path, source: Path, *arguments: str) -> None:
        process = run("import", base, "--json", *arguments, str(source))
        assert "Traceback" not in process.stderr, process.stderr
        self.status = process.returncode
        self.stderr = process.stderr
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        self.summary = lines.pop() if lines else {}
        self.lines = [{k: v for k, v in line.items() if k != "note"} for line in lines]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Files taken, held, kept as the base has them, skipped."""
        taken, held, kept, skipped = (self.summary[name] for name in ("taken", "held", "kept", "skipped"))
        return taken, held, kept, skipped


def records(base: Path) -> list[tuple[int, str, Any]]:
    """Every record of a base that is not served."""
    lines = map(json.loads, run("dump", base, "--show-secrets").stdout.rstrip().split("\n"))
    return [(line["position"], line["op"], line["value"]) for line in lines]


def put_stored(base: Path, *calls: tuple[str, dict[str, Any]]) -> None:
    """Let clients store values in a base."""
    with running_daemon(base) as daemon, Asker(daemon.endpoint) as asker:
        for op, value in calls:
            head, _ = asker.frame(op, value)
            assert head["ok"], head
        assert daemon.stop() == 0


OURS = (
    ("storeJob", job(status="ours")),
    ("storeCheckpoint", checkpoint(status="ours")),
    ("storeRunSetting", setting(model="ours")),
)
THEIRS = (
    ("storeJob", job(status="theirs")),
    ("storeCheckpoint", checkpoint(status="theirs")),
    ("storeRunSetting", setting(model="theirs")),
)
