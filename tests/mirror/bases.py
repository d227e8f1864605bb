"""Daemons with a mirror, their load, and how a base and its mirror are compared."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon
from tests.helpers.s3 import BUCKET, ENVIRONMENT
from tests.offline.bases import SMALL_SEGMENTS


def url_of(prefix: str) -> str:
    """The mirror with a prefix."""
    return f"s3://{BUCKET}/{prefix}"


def mirrored(base: Path, prefix: str, endpoint: str, *arguments: str) -> RunningDaemon:
    """A daemon that mirrors; it is not started."""
    flags = ("--mirror", url_of(prefix), "--mirror-endpoint", endpoint)
    return RunningDaemon(base, *SMALL_SEGMENTS, *flags, *arguments, environment=ENVIRONMENT)


def mirror_stats(daemon: RunningDaemon) -> dict[str, Any]:
    """The mirror's part of `stats`."""
    with Client(daemon.endpoint) as client:
        return dict(client.stats()["mirror"])


def is_mirrored(daemon: RunningDaemon) -> bool:
    """Whether the bucket holds all that was stored when this is called."""
    with Client(daemon.endpoint) as client:
        stats = client.stats()
    return bool(stats["mirror"]["position"] == stats["position"])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `perstack-stored`, with the credentials."""
    return subprocess.run(
        [sys.executable, "-m", "perstack_stored", *arguments],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )


def restore(prefix: str, endpoint: str, base: Path, *arguments: str) -> dict[str, Any]:
    """Restore a base from a mirror; what the command says."""
    done = run(
        "restore",
        url_of(prefix),
        "--base-path",
        str(base),
        "--mirror-endpoint",
        endpoint,
        "--json",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def dump(base: Path) -> list[str]:
    """All records of a base that is not served, one a line: position, time, session and bytes."""
    done = run("dump", "--base-path", str(base))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
