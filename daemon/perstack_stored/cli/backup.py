"""Output and exit statuses of `backup` and `restore`. Other modules do the work."""

import json

import click

from perstack_stored.offline.backup.copy import backup as take_backup
from perstack_stored.offline.backup.restore import restore as restore_base

from .offline import exit_status
from .output import say


def backup(
    base_path: str | None, target: str, *, endpoint: str | None, verify_all: bool, as_json: bool
) -> None:
    """Take a backup, and print what it holds."""
    with exit_status():
        done = take_backup(base_path, target, endpoint=endpoint, verify_all=verify_all)
        manifest = done.manifest
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "position": manifest.position,
                        "store": manifest.store,
                        "segments": len(manifest.segments),
                        "copiedSegments": done.copied_segments,
                        "copiedBytes": done.copied_bytes,
                        "checkedBytes": done.checked_bytes,
                    }
                )
            )
            return
        say(
            f"{target} holds all records up to position {manifest.position}: copied {done.copied_segments}"
            f" of {len(manifest.segments)} segments ({done.copied_bytes} bytes), read back"
            f" {done.checked_bytes} bytes"
        )


def restore(source: str, base_path: str | None, *, to_position: int | None, as_json: bool) -> None:
    """Restore a base, and print what it holds."""
    with exit_status():
        done = restore_base(source, base_path, to_position=to_position)
        if as_json:
            click.echo(json.dumps(done._asdict()))
            return
        say(
            f"{done.base} holds all records up to position {done.position}, as the new history {done.store};"
            " index and tree follow when it is served"
        )
