"""The command `perstack-stored`."""

import json
import os
import sys
from collections.abc import Callable

import click
import structlog

from perstack_storage.protocol import EndpointError
from perstack_stored import __version__
from perstack_stored.access import curve_keys
from perstack_stored.config import sources as config_module
from perstack_stored.config.settings import ITEMS, key_of, show
from perstack_stored.config.sources import CONFIG_VARIABLE, Sources
from perstack_stored.errors import ConfigError, StoredError
from perstack_stored.observe import log
from perstack_stored.observe.systemd import Notifier
from perstack_stored.offline.dump import Wanted
from perstack_stored.process.stdin_watch import stop_with_stdin as end_with_stdin
from perstack_stored.server.daemon import Daemon

from . import offline as offline_cli
from . import retention as retention_cli
from . import status as status_cli
from . import tree as tree_cli
from .backup_commands import backup, restore
from .options import read_config, read_settings, with_settings
from .output import Commands, complain, say
from .stream import stream
from .tree import EXEC_FAILED_STATUS

_log = structlog.get_logger()
_Command = Callable[..., None]
_STDIN_STOP_SECONDS = 30.0  # for the stop; the process ends then, in any case


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="perstack-stored")
def main() -> None:
    """The storage daemon for Perstack agents, and its offline tools."""


@main.command()
@with_settings()
@click.option(
    "--stop-with-stdin",
    is_flag=True,
    help="Stop when standard input ends: for a program that starts a daemon with a pipe, such as a test.",
)
def serve(sources: Sources, *, stop_with_stdin: bool) -> None:
    """Serve a base until SIGTERM or SIGINT.

    Each setting below can also be given as an environment variable (--frame-bytes-max is
    PERSTACK_STORED_FRAME_BYTES_MAX, --base-path PERSTACK_STORED_BASE, --bind PERSTACK_STORED_ENDPOINT), and
    in the settings file, with the name of its flag. Sizes are in bytes. SIGHUP reads the file again: the
    log level and most limits apply at once, the log says what needs a restart.

    Under systemd it reports when it is ready and feeds the watchdog (Type=notify), and serves sockets that
    it inherits. The exit status is 0 after a stop, 1 after a failure that another start may mend, 78 where a
    person is needed (settings, permissions, damage; the log says what), 2 for a wrong flag.
    """
    log.configure(json=not sys.stderr.isatty(), level="info")
    notifier = Notifier.from_environment()
    if stop_with_stdin:
        end_with_stdin(_STDIN_STOP_SECONDS)
    try:
        Daemon(sources, notifier).run()
    except (StoredError, EndpointError) as error:
        notifier.status(f"failed: {error}")
        _log.critical("failed", reason=str(error), error=type(error).__name__)
        sys.exit(error.exit_status if isinstance(error, StoredError) else ConfigError.exit_status)


@main.command()
@click.option("--name", default="client", show_default=True, help="Name for the line of the list of clients.")
@click.option("--read-only", is_flag=True, help="With that access in the line.")
@click.argument("file", type=click.Path())
def keygen(file: str, name: str, *, read_only: bool) -> None:
    """Make a CURVE key pair for the daemon or a client, in the new file FILE that only its owner can read.

    Printed is the public key, as a line for the list of clients (curve-clients). The daemon's own public key,
    its last word, is what clients need as PERSTACK_STORED_SERVER_KEY. The secret key is never printed.
    """
    try:
        if not curve_keys.is_name(name):
            raise ConfigError(f"--name: {curve_keys.NAME_RULE}")
        pair = curve_keys.generate(file)
    except StoredError as error:
        complain(error)
        sys.exit(2)
    access = "read-only" if read_only else "read-write"
    say(f"{name} {access} {pair.public.decode()}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--sample", is_flag=True, help="Print a settings file that explains all settings instead.")
@with_settings()
def config(sources: Sources, *, as_json: bool, sample: bool) -> None:
    """Print the settings that `serve` would use, and the source of each value.

    The output is a settings file itself. It has no secrets: settings only name the files that hold them.
    """
    if sample:
        click.echo(config_module.sample(), nl=False)
        return
    found = read_config(sources, resolve=True)
    if as_json:
        values = {
            key_of(item): {
                "value": getattr(found.settings, name),
                "text": show(item, getattr(found.settings, name)),
                "from": found.origins[name],
            }
            for name, item in ITEMS.items()
        }
        click.echo(json.dumps(values))
    else:
        click.echo(config_module.describe(found), nl=False)


@main.command()
@with_settings("base_path")
@click.option(
    "--endpoint", metavar="ENDPOINT", help="Of the daemon of the base. [default: as recorded in the base]"
)
@click.option(
    "--backups",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    help="Where backups are. [default: beside the base, as the installed timer has it]",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0.1, max=60),
    default=3,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an answer of the daemon.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(
    sources: Sources, *, endpoint: str | None, backups: str | None, timeout_seconds: float, as_json: bool
) -> None:
    """Show on one screen whether a base is served, and how its daemon is.

    It reads the base's lock, asks the daemon, and asks it once more a second later for the rates. It changes
    nothing, and starts no daemon. Healthy is what /readyz calls ready: the daemon answers, and the index can
    go on. Notes name what is worth a look besides.

    The exit status is 0 if it is healthy, 1 if it is not or is not running (the first line says which), 2 for
    a wrong flag or setting.
    """
    config = read_config(sources)
    try:
        base = config.base
    except StoredError as error:
        complain(error)
        sys.exit(2)
    status_cli.status(
        base, endpoint=endpoint, backups=backups, timeout_seconds=timeout_seconds, as_json=as_json
    )


@main.command()
@with_settings("base_path")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
def check(sources: Sources, *, as_json: bool) -> None:
    """Compare journal, index and tree of a base that is not served, and change nothing.

    The exit status is 0 if all is well, 1 if there are findings, 2 if the base can't be checked. Notes name
    what the next start corrects, and foreign files. It builds an index in a temporary folder (TMPDIR).
    """
    offline_cli.check(read_settings(sources).base_path or None, as_json=as_json)


@main.command()
@with_settings("base_path", "file_mode", "folder_mode")
@click.option("--index", "index_only", is_flag=True, help="Rebuild the index only.")
@click.option("--tree", "tree_only", is_flag=True, help="Rebuild the tree only.")
@click.option("--retry-blocked", is_flag=True, help="Write again the records that the tree passes over.")
def rebuild(sources: Sources, *, index_only: bool, tree_only: bool, retry_blocked: bool) -> None:
    """Build index and tree of a base that is not served again from its journal.

    In the tree it writes missing or differing files, and removes nothing. A record at which the process that
    writes the tree died twice is passed over, and named. The exit status is 1 if the journal is damaged, a
    file can't be written or a record was passed over, 2 if the base can't be rebuilt.
    """
    both = index_only == tree_only
    offline_cli.rebuild(
        read_settings(sources),
        index_too=both or index_only,
        tree_too=both or tree_only,
        retries=retry_blocked,
    )


@main.command()
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


@main.command()
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
    """Print which jobs a daemon with these settings deletes in its next sweep, the oldest first.

    Nothing is deleted, and the base may be served meanwhile. A daemon with such settings sweeps each hour,
    at most 1,000 jobs; the first sweep comes an hour after its start, and the log says before what goes.

    The exit status is 2 if the base can't be read, or no setting asks for retention.
    """
    assert dry_run
    retention_cli.dry_run(read_settings(sources), as_json=as_json)


@main.command()
@with_settings("base_path", "file_mode", "folder_mode")
@click.option("--write", "job", metavar="JOB", required=True, help="The id of the job.")
def tree(sources: Sources, *, job: str) -> None:
    """Write a job back into the tree that has left it, because of tree-keep-days.

    All its files are there then, but for the events that tree-leave-out names. They stay for tree-keep-days
    from now on, or, if that is off, for ever; with a new record the job stays anyway, and a job that never
    left stays as long. If the base is served, its daemon does it: run it as the daemon's user.

    The exit status is 0 if the files are there, 1 if the daemon did not write them within a minute, 2 if the
    base has no such job, or they can't be written.
    """
    tree_cli.write_back(read_settings(sources), job)


@main.command()
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
    """Print the records of a base that is not served, in order, as JSON lines.

    The exit status is 1 if the journal is damaged; the records before the damage are printed.
    """
    offline_cli.dump(
        read_settings(sources).base_path or None, Wanted(after, limit, job, show_secrets, deletions)
    )


@main.command("import")
@with_settings("base_path", "segment_bytes", "first_segment_bytes", "file_mode", "folder_mode")
@click.option("--force", is_flag=True, help="Let the tree's values replace other, newer ones of the base.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@click.argument("source", type=click.Path(file_okay=False))
def import_(sources: Sources, source: str, *, force: bool, as_json: bool) -> None:
    """Import another tree that Perstack wrote, from the folder SOURCE that holds its jobs/.

    The base must not be served; it is made if there is none. SOURCE is not changed. Events are added, but for
    those that the base holds byte for byte. A job or checkpoint that a client stored in the base, or that was
    imported after the file was last written, is kept where it differs, and named; so is a run setting.
    After an interruption, run it again. Index and tree of the base follow at the next start.

    The exit status is 0 if the base now holds all there is, 1 if a file was left out or its value not taken,
    2 if nothing can be imported.
    """
    tree_cli.import_tree(read_settings(sources), source, force=force, as_json=as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@click.argument("tree", type=click.Path(file_okay=False))
def audit(tree: str, *, as_json: bool) -> None:
    """Audit any tree that Perstack wrote: TREE is the folder that holds its jobs/. Nothing is changed.

    Names torn, invalid and misplaced files, links, foreign files, and gaps that point to lost events.
    Gaps are signs, not proofs, and a loss without a gap is not seen; in a run that goes on, the last step is
    spared. In a tree that is being written, a file may be read half-written.

    The exit status is 0 if all is well, 1 if there are findings, 2 if the tree can't be read.
    """
    tree_cli.audit(tree, as_json=as_json)


@main.command("exec", context_settings={"allow_interspersed_args": False})
@with_settings("base_path")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="How long the tree may take to follow, before the daemon is stopped.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(sources: Sources, command: tuple[str, ...], drain_seconds: float) -> None:
    """Run COMMAND with a daemon on the base, and stop the daemon after it.

    COMMAND finds the daemon by PERSTACK_STORED_BASE and PERSTACK_STORED_ENDPOINT. One that serves the base
    already is joined, and left running, unless another exec started it and ended before. Its log is
    .stored/exec.log in the base; it is set up by the environment variables of serve.

    SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on. The exit status is that of COMMAND, 128+n if signal n
    ended it, 127 if it is not found, 126 if it can't be run, 125 if there is no daemon.
    """
    found = read_config(sources, EXEC_FAILED_STATUS)
    if sources.path is not None:
        os.environ[CONFIG_VARIABLE] = sources.path  # for the daemon
    tree_cli.run(found, command, drain_seconds)


main.add_command(backup)
main.add_command(restore)
main.add_command(stream)
