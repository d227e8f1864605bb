"""The commands `tree`, `import`, `audit` and `exec`: their flags and help."""

import os

import click

from perstack_stored.config.sources import CONFIG_VARIABLE, Sources

from . import tree as tree_cli
from .options import read_config, read_settings, with_settings
from .tree import EXEC_FAILED_STATUS


@click.command()
@with_settings("base_path", "file_mode", "folder_mode")
@click.option("--write", "job", metavar="JOB", required=True, help="The id of the job.")
def tree(sources: Sources, *, job: str) -> None:
    """Write an old job's files back into the tree.

    The job has left the tree by tree-keep-days. All its files are there then, but for the events that
    tree-leave-out names. They stay for tree-keep-days from now on, or, if that is off, for ever; with a new
    record the job stays anyway, and a job that never left stays as long. If the base is served, its daemon
    does it: run it as the daemon's user.

    The exit status is 0 if the files are there, 1 if the daemon did not write them within a minute, 2 if the
    base has no such job, or they can't be written.
    """
    tree_cli.write_back(read_settings(sources), job)


@click.command("import")
@with_settings("base_path", "segment_bytes", "first_segment_bytes", "file_mode", "folder_mode")
@click.option("--force", is_flag=True, help="Let the tree's values replace other, newer ones of the base.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@click.argument("source", type=click.Path(file_okay=False))
def import_(sources: Sources, source: str, *, force: bool, as_json: bool) -> None:
    """Import another tree that Perstack wrote.

    SOURCE is the folder that holds its jobs/. The base must not be served; it is made if there is none.
    SOURCE is not changed. Events are added, but for those that the base holds byte for byte. A job or
    checkpoint that a client stored in the base, or that was imported after the file was last written, is kept
    where it differs, and named; so is a run setting. After an interruption, run it again. Index and tree of
    the base follow at the next start.

    The exit status is 0 if the base now holds all there is, 1 if a file was left out or its value not taken,
    2 if nothing can be imported.
    """
    tree_cli.import_tree(read_settings(sources), source, force=force, as_json=as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@click.argument("tree", type=click.Path(file_okay=False))
def audit(tree: str, *, as_json: bool) -> None:
    """Look for lost events in a tree that Perstack wrote.

    TREE is the folder that holds its jobs/. Nothing is changed.

    Names torn, invalid and misplaced files, links, foreign files, and gaps that point to lost events.
    Gaps are signs, not proofs, and a loss without a gap is not seen; in a run that goes on, the last step is
    spared. In a tree that is being written, a file may be read half-written.

    The exit status is 0 if all is well, 1 if there are findings, 2 if the tree can't be read.
    """
    tree_cli.audit(tree, as_json=as_json)


@click.command("exec", context_settings={"allow_interspersed_args": False})
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
    """Run COMMAND with a daemon beside it.

    The daemon is started before COMMAND, and stopped after it.

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
