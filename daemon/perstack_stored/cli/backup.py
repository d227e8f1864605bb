"""Output and exit statuses of `backup` and `restore`. Other modules do the work."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from perstack_storage.protocol import resolve_base
from perstack_stored.config.mirror_url import is_mirror_url, parse_url
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.observe import log
from perstack_stored.offline.backup import at_time, fetch, restore_jobs
from perstack_stored.offline.backup.copy import Done
from perstack_stored.offline.backup.copy import backup as take_backup
from perstack_stored.offline.backup.deletion_list import read_list
from perstack_stored.offline.backup.generations import backup_and_keep
from perstack_stored.offline.backup.manifest import open_folder
from perstack_stored.offline.backup.restore import restore as restore_base
from perstack_stored.offline.backup.restore_jobs import JobsWanted
from perstack_stored.offline.findings import Report

from .offline import conclude, exit_status, printer
from .output import say


class Options(NamedTuple):
    """How a backup is taken. `keep`: count of the backups that stay in the target; None: it is one itself."""

    endpoint: str | None
    keep: int | None
    verify_all: bool


def backup(base_path: str | None, target: str, options: Options, *, as_json: bool) -> None:
    """Take a backup, and print what it holds."""
    with exit_status():
        path, removed = target, None
        if options.keep is None:
            done = take_backup(base_path, target, endpoint=options.endpoint, verify_all=options.verify_all)
        else:
            done, path, removed = backup_and_keep(
                base_path, target, keep=options.keep, endpoint=options.endpoint, verify_all=options.verify_all
            )
        if as_json:
            click.echo(json.dumps(_as_json(done, path, removed)))
            return
        manifest = done.manifest
        also = f"; removed {', '.join(removed)}" if removed else ""
        say(
            f"{path} holds all records up to position {manifest.position}: copied {done.copied_segments}"
            f" of {len(manifest.segments)} segments ({done.copied_bytes} bytes), read back"
            f" {done.checked_bytes} bytes{also}"
        )


def _as_json(done: Done, path: str, removed: tuple[str, ...] | None) -> dict[str, Any]:
    """What a backup has done; `path` and `removed` only of one that was taken with --keep."""
    said: dict[str, Any] = {
        "position": done.manifest.position,
        "store": done.manifest.store,
        "segments": len(done.manifest.segments),
        "copiedSegments": done.copied_segments,
        "copiedBytes": done.copied_bytes,
        "checkedBytes": done.checked_bytes,
    }
    return said if removed is None else {**said, "path": path, "removed": list(removed)}


@contextmanager
def local_source(
    source: str, settings: Settings, history: str | None, to_position: int | None
) -> Iterator[str]:
    """The folder of a backup: the source itself, or what is fetched of a mirror, beside the base."""
    if not is_mirror_url(source):
        if history is not None:
            raise click.UsageError("--history goes with a mirror, s3://BUCKET/PREFIX")
        yield source
        return
    with exit_status():
        place = parse_url(source, "SOURCE")
        bucket = fetch.open_bucket(place, settings.mirror_endpoint, settings.mirror_credentials)
        beside = os.path.dirname(resolve_base(settings.base_path or None))
        os.makedirs(beside, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=beside) as path:
            with open_folder(FileSystem(), path, make=True) as folder:
                fetch.fetch(bucket, fetch.Wanted(history, to_position), folder)
            yield path


def position_at(source: str, text: str) -> int:
    """The position of a backup that a time stands for, as it was typed."""
    try:
        # In UTC, as it is shown: a time at the border of the calendar can't be.
        time_ms = round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(f"--to-time: {text!r} is no time such as 2026-01-31T08:00Z") from None
    with exit_status():
        return at_time.position_at(source, time_ms)
    raise AssertionError("exit_status ends the process")


def restore_job(source: str, settings: Settings, wanted: JobsWanted, *, as_json: bool) -> None:
    """Restore some jobs, and print what was stored, kept and replaced."""
    log.configure(json=as_json, level="warning")
    with exit_status():
        report = Report(printer(as_json=as_json), restore_jobs.FINDINGS, restore_jobs.NOTES)
        restore_jobs.restore_jobs(source, settings.base_path or None, wanted, settings, report)
        conclude(report, "of the jobs", as_json=as_json)


def restore(
    source: str, base_path: str | None, *, to_position: int | None, deletions: str | None, as_json: bool
) -> None:
    """Restore a base, and print what it holds."""
    with exit_status():
        listed = [] if deletions is None else read_list(deletions)
        done = restore_base(source, base_path, to_position=to_position, deletions=listed)
        if as_json:
            click.echo(json.dumps(done._asdict()))
            return
        say(
            f"{done.base} holds all records up to position {done.position}, as the new history {done.store};"
            " index and tree follow when it is served"
        )
