"""Daemons with a mirror, their load, and how a base and its mirror are compared."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import obstore

from perstack_storage import Client
from perstack_stored.mirror import pieces
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.s3 import BUCKET, ENVIRONMENT, S3Server
from tests.offline.bases import SMALL_SEGMENTS

PATIENCE_SECONDS = 250.0
_COMMAND_SECONDS = 900.0
_EVENT = re.compile(r"(.*/)event-(\d+)-(.*?)(?:\.n(\d+))?\.json", re.DOTALL)


def url_of(prefix: str) -> str:
    """The mirror with a prefix."""
    return f"s3://{BUCKET}/{prefix}"


def mirrored(base: Path, prefix: str, endpoint: str, *arguments: str) -> RunningDaemon:
    """A daemon that mirrors; it is not started."""
    flags = ("--mirror", url_of(prefix), "--mirror-endpoint", endpoint)
    return RunningDaemon(base, *SMALL_SEGMENTS, *flags, *arguments, environment=ENVIRONMENT)


def copying(base: Path, prefix: str, endpoint: str, *arguments: str) -> RunningDaemon:
    """A daemon that serves a copy; it is not started."""
    flags = ("--follow-mirror", url_of(prefix), "--mirror-endpoint", endpoint)
    return RunningDaemon(base, *SMALL_SEGMENTS, *flags, *arguments, environment=ENVIRONMENT)


def await_copy(original: RunningDaemon, copy: RunningDaemon) -> None:
    """Wait until the copy holds what the original holds now."""
    eventually(lambda: is_mirrored(original), "the bucket holds all", PATIENCE_SECONDS)
    with Client(original.endpoint) as client:
        position = client.stats()["position"]
    with Client(copy.endpoint) as client:
        eventually(lambda: client.stats()["position"] == position, "the copy has it", PATIENCE_SECONDS)


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
        timeout=_COMMAND_SECONDS,
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


def objects_with(server: S3Server, prefix: str, word: bytes) -> list[str]:
    """Keys of the objects of a mirror that hold a word."""
    found = []
    for page in obstore.list(server.store, prefix=f"{prefix}/.stored"):
        for item in page:
            with contextlib.suppress(FileNotFoundError):  # it goes meanwhile
                data = bytes(obstore.get(server.store, item["path"]).bytes())
                if data.startswith(pieces.MAGIC) and word in pieces.decode(data).data:
                    found.append(item["path"])
    return found


def as_objects(files: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    """The files of a tree by the keys that they have in a bucket."""
    return {f"{prefix}/{as_key(path, data)}": data for path, data in files.items()}


def as_key(path: str, data: bytes) -> str:
    """The time of an event has its fraction there; zeros and a number follow where files share a name."""
    found = _EVENT.fullmatch(path)
    if found is None:
        return path
    folder, time, rest, number = found.groups()
    exact = json.loads(data)["timestamp"]
    time += f"{exact % 1:g}".removeprefix("0")
    if number:
        time += ("" if "." in time else ".") + f"{int(number):024d}"
    return f"{folder}event-{time}-{rest}.json"
