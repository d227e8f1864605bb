"""Backups and restores without processes, and what they hold."""

import json
from pathlib import Path
from typing import Any

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.offline.backup import manifest
from perstack_stored.offline.backup.copy import backup
from perstack_stored.offline.backup.manifest import Manifest
from perstack_stored.offline.backup.restore import restore
from perstack_stored.offline.dump import Wanted, dump
from perstack_stored.offline.locked import locked_datadir
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw
from tests.offline.bases import answers


def manifest_of(target: Path) -> Manifest | None:
    with manifest.open_folder(FileSystem(), str(target), make=False) as folder:
        return manifest.read_manifest(folder)


def back_up(base: Path, target: Path, files: FileSystem | None = None) -> int:
    return backup(str(base), str(target), endpoint=None, verify_all=False, files=files).manifest.position


def bring_back(target: Path, base: Path, to: int | None = None, files: FileSystem | None = None) -> None:
    restore(str(target), str(base), to_position=to, files=files)


def records(base: Path) -> list[dict[str, Any]]:
    """All that the journal holds, in order: positions, times, sessions, values."""
    with locked_datadir(str(base), "test", reads_only=True) as held:
        return [json.loads(line) for line in dump(held, Wanted(show_secrets=True))]


def followed(base: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Answers and tree, when a daemon has served the base until all was followed."""
    with running_daemon(base) as daemon:
        with Raw(daemon.endpoint) as raw:
            eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
        answered = answers(daemon)
        assert daemon.stop() == 0
    return answered, files_of(base)
