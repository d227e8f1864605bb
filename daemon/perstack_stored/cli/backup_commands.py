"""The commands `backup` and `restore`: their flags and help."""

from typing import Any

import click

from perstack_stored.config.sources import Sources
from perstack_stored.offline.backup.restore_jobs import JobsWanted

from . import backup as backup_cli
from .options import read_settings, with_settings


@click.command()
@with_settings("base_path")
@click.option(
    "--endpoint", metavar="ENDPOINT", help="Of the daemon of the base. [default: as recorded in the base]"
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the N newest backups in TARGET, each in a folder named by its time (UTC).",
)
@click.option("--verify-all", is_flag=True, help="Read back what earlier backups copied, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.argument("target", type=click.Path(file_okay=False))
def backup(
    sources: Sources, target: str, *, endpoint: str | None, keep: int | None, verify_all: bool, as_json: bool
) -> None:
    """Back up a base, served or not, into the folder TARGET.

    TARGET then holds all records up to one position: all that is acknowledged before it begins. A TARGET
    that holds an earlier backup of the same base is brought up to date; only new segments are copied. Each
    copy is read back from the disk and tested. After an interruption the earlier backup still
    counts, and the next run cleans up. Keys and settings are in it as they were stored: guard it as the base.

    With --keep, each run makes a backup of its own in TARGET, such as TARGET/20260131T020000Z, and then
    removes the oldest. They share the files that did not change by hard links.

    The exit status is 0 if TARGET is complete, 1 if the journal is damaged, 2 if it can't be done.
    """
    backup_cli.backup(
        read_settings(sources).base_path or None,
        target,
        backup_cli.Options(endpoint, keep, verify_all),
        as_json=as_json,
    )


@click.command()
@with_settings(
    "base_path",
    "segment_bytes",
    "first_segment_bytes",
    "file_mode",
    "folder_mode",
    "mirror_endpoint",
    "mirror_credentials",
)
@click.option(
    "--to-position",
    type=click.IntRange(min=1),
    metavar="N",
    help="Restore the records 1 to N. [default: all]",
)
@click.option(
    "--to-time",
    metavar="TIME",
    help="Restore what was stored by then, such as 2026-01-31T08:00Z; without a zone it is local time.",
)
@click.option("--job", "jobs", metavar="ID", multiple=True, help="Only this job, into any base; repeatable.")
@click.option(
    "--deletions",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Delete what this list names, written by `dump --deletions` of the base that was backed up.",
)
@click.option("--history", metavar="ID", help="Of a mirror: the history, where the prefix holds several.")
@click.option("--force", is_flag=True, help="With --job: let the backup's values replace others of the base.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --job, one for each line.")
@click.argument("source", type=click.Path(file_okay=False))
def restore(
    sources: Sources,
    source: str,
    *,
    to_position: int | None,
    jobs: tuple[str, ...],
    as_json: bool,
    **more: Any,
) -> None:
    """Make a base from a backup, or bring back jobs of it.

    SOURCE is the backup's folder, or a mirror, s3://BUCKET/PREFIX. A mirror is fetched into a folder beside
    the base, tested piece by piece, and removed from there at the end.

    The base must be an empty folder, or not there yet. All of the backup that is needed is tested on the way.
    Positions stay as they were; the history gets a new id (`store` in hello), so that subscribers of the old
    one notice. A daemon builds index and tree at its start. After an interruption there is no base, and it
    can be run again.

    With --deletions, a list that `dump --deletions` wrote, what was deleted after the backup is deleted in
    the new base too, and what was redacted is redacted, before there is one. Without it, it comes back.

    With --job the base may hold records already, and must not be served. What it lacks of the job is stored
    again, as new records: job, checkpoints, run settings and events, as they were at the end of the backup,
    or at --to-position or --to-time. A value that differs in the base is kept, and named, unless --force is
    given. If it is run again, it stores nothing. Files that are missing in the tree alone come back by
    `rebuild --tree`.

    The exit status is 0 if the base was made, or holds all there is of the jobs; 1 if a value was kept; 2 if
    it can't be done.
    """
    settings = read_settings(sources)
    force, deletions = bool(more["force"]), more["deletions"]
    if more["to_time"] is not None and to_position is not None:
        raise click.UsageError("--to-time has no place beside --to-position")
    if jobs and deletions is not None:
        raise click.UsageError("--deletions has no place beside --job: what it brings back is stored again")
    if force and not jobs:
        raise click.UsageError("--force goes with --job")
    with backup_cli.local_source(source, settings, more["history"], to_position) as folder:
        if more["to_time"] is not None:
            to_position = backup_cli.position_at(folder, more["to_time"])
        if jobs:
            wanted = JobsWanted(frozenset(jobs), to_position, force)
            backup_cli.restore_job(folder, settings, wanted, as_json=as_json)
        else:
            base_path = settings.base_path or None
            backup_cli.restore(
                folder, base_path, to_position=to_position, deletions=deletions, as_json=as_json
            )
