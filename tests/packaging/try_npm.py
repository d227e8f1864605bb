"""The npm tarball in an empty folder, as a user of TypeScript has it: installed, type-checked, used.

`make test-release` runs it on what is in dist/. It needs node, npm and the npm registry.
"""

import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from perstack_storage import Client, __version__
from tests.docs.pages import ROOT
from tests.helpers.daemon import running_daemon
from tests.packaging.roots import figure
from tests.systemd.debian import need

TARBALL = ROOT / f"dist/perstack-storage-client-{__version__}.tgz"
TSC = ROOT / "client/typescript/node_modules/typescript/bin/tsc"
NODE_TYPES = ROOT / "client/typescript/node_modules/@types"
PROGRAM = """
import { createStorage, type Checkpoint, type RunEvent } from "perstack-storage-client"

const storage = createStorage({ endpoint: process.argv[2] })
const event = {
  id: "e1", type: "startRun", timestamp: 1795406152251, stepNumber: 0,
  jobId: "job-1", runId: "run-1", expertKey: "me",
} as unknown as RunEvent
await storage.storeEvent(event)
const found: RunEvent[] = await storage.getEventContents("job-1", "run-1")
const none: Checkpoint[] = await storage.getCheckpointsByJobId("job-1")
console.log(found.map(({ id }) => id).join(), none.length)
await storage.close()
"""
COMPILE = (
    "--module", "nodenext", "--moduleResolution", "nodenext", "--target", "es2022", "--strict", "--typeRoots",
    str(NODE_TYPES), "--types", "node", "program.mts",
)  # fmt: skip


def call(*words: str | Path, at: Path) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=at, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(300)
def test_it_installs_and_stores_its_first_event(tmp_path: Path) -> None:
    """Its types are found by a compiler, and what it stored is read by a client in Python."""
    need(shutil.which("npm") is not None, "install nodejs and npm")
    (tmp_path / "package.json").write_text('{"type":"module","private":true}')
    (tmp_path / "program.mts").write_text(PROGRAM)
    began = time.monotonic()
    call("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", TARBALL, at=tmp_path)
    call("node", TSC, *COMPILE, at=tmp_path)
    with running_daemon(tmp_path / "perstack") as daemon:
        assert call("node", "program.mjs", daemon.endpoint, at=tmp_path) == "e1 0"
        seconds = time.monotonic() - began
        with Client(daemon.endpoint) as client:
            assert [event["id"] for event in client.get_event_contents("job-1", "run-1")] == ["e1"]
    size = TARBALL.stat().st_size
    figure(f"{TARBALL.name}: {size / 1e3:.0f} kB, {seconds:.1f} s to the first event from TypeScript")


def test_the_tarball_holds_what_runs_and_its_types() -> None:
    """Each entry of `exports`; no source, no test, no configuration of the build."""
    with tarfile.open(TARBALL) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        member = archive.extractfile("package/package.json")
        assert member is not None
        package = json.load(member)
    outside = {name for name in names if not name.startswith("dist/")}
    assert outside == {"package.json", "README.md", "LICENSE"}
    assert {Path(name).suffix for name in names if name.startswith("dist/")} == {".js", ".ts"}
    assert not [name for name in names if name.endswith(".ts") and not name.endswith(".d.ts")]
    assert package["version"] == __version__
    for entry in package["exports"].values():
        for target in [entry] if isinstance(entry, str) else entry.values():
            assert target.removeprefix("./") in names
