"""Links planted wherever the daemon opens or makes something: nothing is ever written outside the base."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, checkpoint, event, job, setting

EVENT = "jobs/j/runs/r1/event-1717171717200-0-startRun.json"
# What is planted together; a start that is refused tells nothing of others.
FOLDERS = {
    "tree": ("jobs/j/checkpoints", "jobs/j/runs/r1"),
    "runs": ("jobs/j/runs",),
    "job": ("jobs/j",),
    "jobs": ("jobs",),
    "stored": (".stored",),
    "journal": (".stored/journal",),
    "staging": (".stored/staging",),
}
FILES = {
    "tree": ("jobs/j/job.json", "jobs/j/checkpoints/c1.json", "jobs/j/runs/r1/run-setting.json", EVENT),
    "cursor": (".stored/tree.cursor", ".stored/tree.cursor.new", ".stored/staging/aside"),
    "index": (".stored/index.sqlite",),
    "beside the index": tuple(f".stored/index.sqlite-{end}" for end in ("wal", "shm", "journal")),
    "socket": (".stored/stored.sock",),
    "lock": (".stored/lock",),
    "segments": (".stored/journal/0000000001.segment", ".stored/journal/0000000002.segment"),
    "parts": (".stored/journal/new.segment.part", ".stored/journal/next.segment.part"),
}
SETTINGS = ("--segment-bytes", str(1 << 20))
PLACES = [*((name, True) for name in FOLDERS), *((name, False) for name in FILES)]


def _outside(folder: Path) -> dict[str, Any]:
    """All that lies there, with content, mode and time of its last change."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def _use(daemon: RunningDaemon, *, no_tree: bool = False) -> None:
    """Start it, store each kind twice, and let tree and journal go on; a start that is refused is named.

    Args:
        daemon: not started yet.
        no_tree: all of the tree is elsewhere, so that it can't go on: that is shown.
    """
    daemon.start(wait=False)
    assert daemon.process is not None
    process = daemon.process
    eventually(lambda: bool(daemon.events("ready")) or process.poll() is not None, "it is ready or ends")
    if process.poll() is not None:
        assert process.returncode != 0
        assert b"Traceback" not in daemon.log.read_bytes()
        return
    with Raw(daemon.endpoint) as raw:
        for n in range(2):
            raw.store("storeJob", job("j", totalSteps=n))
            raw.store("storeCheckpoint", checkpoint(jobId="j", stepNumber=n))
            raw.store("storeEvent", event(jobId="j", text=str(n)))
            raw.store("storeRunSetting", setting(jobId="j"))
            raw.store("storeEvent", event(f"large{n}", jobId="k", text="x" * 3_000_000, timestamp=n))
        if no_tree:
            eventually(lambda: raw.ask("stats").value["tree"]["fault"] != "", "the fault is shown")
        else:
            eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree goes on")
        assert len(raw.ask("getEventsByRun", {"jobId": "k", "runId": "r1"}).value) == 2
    assert daemon.stop() == 0


@pytest.fixture(scope="module")
def used_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that was used, and whose daemon has stopped."""
    daemon = RunningDaemon(tmp_path_factory.mktemp("used") / "base", *SETTINGS)
    try:
        _use(daemon)
    finally:
        daemon.make_sure_it_ended()
    return daemon.base


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(("places", "folders"), PLACES, ids=str)
def test_planted_links_lead_nothing_outside(
    tmp_path: Path, used_base: Path, places: str, *, folders: bool, used: bool
) -> None:
    """On a new base, where links to files lead to nothing yet, and on one that was used."""
    outside = tmp_path / "outside"
    (outside / "within").mkdir(parents=True)
    (outside / "precious.json").write_text('{"precious": true}')
    daemon = RunningDaemon(tmp_path / "base", *SETTINGS)
    try:
        if used:
            shutil.copytree(used_base, daemon.base)
        for n, place in enumerate((FOLDERS if folders else FILES)[places]):
            planted = daemon.base / place
            planted.parent.mkdir(parents=True, exist_ok=True)
            if planted.exists():
                planted.rename(tmp_path / f"aside{n}")
            target = "within" if folders else "precious.json" if used else f"made{n}"
            os.symlink(outside / target, planted)
        before = _outside(outside)
        _use(daemon, no_tree=places == "jobs")
        assert _outside(outside) == before
    finally:
        daemon.make_sure_it_ended()
