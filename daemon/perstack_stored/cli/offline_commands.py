"""The commands on a base that is not served, and `retention`: their flags and help."""

import click

from perstack_stored.config.sources import Sources
from perstack_stored.offline.dump import Wanted

from . import offline as offline_cli
from . import retention as retention_cli
from .options import read_settings, with_settings


@click.command()
@with_settings("base_path")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
def check(sources: Sources, *, as_json: bool) -> None:
    """Verify journal, index and tree, and change nothing.

    The base must not be served.

    The exit status is 0 if all is well, 1 if there are findings, 2 if the base can't be checked. Notes name
    what the next start corrects, and foreign files. It builds an index in a temporary folder (TMPDIR).
    """
    offline_cli.check(read_settings(sources).base_path or None, as_json=as_json)


@click.command()
@with_settings("base_path", "file_mode", "folder_mode")
@click.option("--index", "index_only", is_flag=True, help="Rebuild the index only.")
@click.option("--tree", "tree_only", is_flag=True, help="Rebuild the tree only.")
@click.option("--retry-blocked", is_flag=True, help="Write again the records that the tree passes over.")
def rebuild(sources: Sources, *, index_only: bool, tree_only: bool, retry_blocked: bool) -> None:
    """Build index and tree again, from the journal.

    The base must not be served. In the tree it writes missing or differing files, and removes nothing. A
    record at which the process that writes the tree died twice is passed over, and named. The exit status is
    1 if the journal is damaged, a file can't be written or a record was passed over, 2 if the base can't be
    rebuilt.
    """
    both = index_only == tree_only
    offline_cli.rebuild(
        read_settings(sources),
        index_too=both or index_only,
        tree_too=both or tree_only,
        retries=retry_blocked,
    )


@click.command()
@with_settings("base_path")
@click.option("--dry-run", is_flag=True, help="Only report what would be restored, and what is lost.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
def repair(sources: Sources, *, dry_run: bool, as_json: bool) -> None:
    """Repair the damaged journal of a base that is not served.

    Segments that are damaged or missing are rewritten. They hold the valid records of the old ones, at their
    positions. Damaged records are restored from the tree, or from the journal's own bytes, where the
    index confirms them by a checksum. A record without evidence becomes a gap, and is named; its position is
    never reused. The damaged segments are kept in .stored/repaired-0001 (0002, …), with the index,
    which the next start rebuilds. The tree does not change. After an interruption, run it again.

    The exit status is 0 if nothing is lost, 1 if records are lost, 2 if the journal can't be repaired.
    """
    offline_cli.repair(read_settings(sources).base_path or None, dry_run=dry_run, as_json=as_json)


@click.command()
@with_settings("base_path")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="POSITION",
    help="Only records after this position.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N records.")
@click.option("--job", metavar="ID", help="Only records of this job.")
@click.option(
    "--show-secrets", is_flag=True, help="Don't hide keys, tokens, headers and env in run settings."
)
@click.option(
    "--deletions", is_flag=True, help="Only what was deleted or redacted: the list for `restore --deletions`."
)
def dump(
    sources: Sources,
    after: int,
    limit: int | None,
    job: str | None,
    *,
    show_secrets: bool,
    deletions: bool,
) -> None:
    """Print all records in order, as JSON lines.

    The base must not be served.

    The exit status is 1 if the journal is damaged; the records before the damage are printed.
    """
    offline_cli.dump(
        read_settings(sources).base_path or None, Wanted(after, limit, job, show_secrets, deletions)
    )


@click.command()
@with_settings(
    "base_path",
    "retain_days",
    "retain_failed_days",
    "retain_running_days",
    "retain_jobs",
    "retain_bytes",
)
@click.option("--dry-run", is_flag=True, required=True, help="Only print; a daemon deletes by itself.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each job.")
def retention(sources: Sources, *, dry_run: bool, as_json: bool) -> None:
    """Print which jobs retention would delete next.

    They are those that a daemon with these settings deletes in its next sweep, the oldest first. Nothing is
    deleted, and the base may be served meanwhile. A daemon with such settings sweeps each hour, or as
    retain-sweep-seconds says, at most 1,000 jobs. The first sweep comes that long after its start, and the
    log says before what goes.

    The exit status is 2 if the base can't be read, or no setting asks for retention.
    """
    assert dry_run
    retention_cli.dry_run(read_settings(sources), as_json=as_json)
