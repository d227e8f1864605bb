"""The command `perstack-stored`."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import click
import structlog

from perstack_storage import __version__
from perstack_storage._endpoint import resolve_base, resolve_endpoint
from perstack_storage._errors import EndpointError

from . import log, offline_cli, tree_cli
from .daemon import Daemon
from .dump import Wanted
from .errors import StoredError
from .settings import ENVIRONMENT_PREFIX, Settings

_log = structlog.get_logger()


class _Octal(click.ParamType[int]):
    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(value, 8)
        except ValueError:
            self.fail(f"{value!r} is not an octal mode", param, ctx)


def _settings_options(command: Callable[..., None], *names: str) -> Callable[..., None]:
    """A flag and an environment variable for each setting, or for those named."""
    for item in reversed(dataclasses.fields(Settings)):
        if names and item.name not in names:
            continue
        octal = item.name.endswith("_mode")
        default = item.default
        command = click.option(
            "--" + item.name.replace("_", "-"),
            envvar=ENVIRONMENT_PREFIX + item.name.upper(),
            type=_Octal() if octal else click.INT,
            default=default,
            show_default=f"{default:#o}" if octal else True,
            help=item.metadata["help"] + ".",
        )(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="perstack-stored")
def main() -> None:
    """The storage daemon for Perstack agents, and its offline tools."""


_base_option = click.option(
    "--base-path",
    envvar="PERSTACK_STORED_BASE",
    metavar="DIR",
    help="The base: its folder jobs/ is the tree. Default: ./perstack",
)


@main.command()
@_base_option
@click.option(
    "--bind",
    "endpoints",
    multiple=True,
    metavar="ENDPOINT",
    help="Where to serve; may be given more than once."
    " Default: PERSTACK_STORED_ENDPOINT, or the socket of the base.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    envvar="PERSTACK_STORED_LOG_FORMAT",
    show_default=True,
    help="auto: readable on a terminal, JSON elsewhere.",
)
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    default="info",
    envvar="PERSTACK_STORED_LOG_LEVEL",
    show_default=True,
)
@_settings_options
def serve(
    base_path: str | None, endpoints: tuple[str, ...], log_format: str, log_level: str, **settings: int
) -> None:
    """Serve a base until SIGTERM or SIGINT.

    Each setting below can also be given as an environment variable: --frame-bytes-max is
    PERSTACK_STORED_FRAME_BYTES_MAX. Sizes are in bytes.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    log.configure(json=as_json, level=log_level)
    try:
        base = resolve_base(base_path)
        daemon = Daemon(
            base,
            endpoints or (resolve_endpoint(None, base),),
            Settings(**settings),
            log_json=as_json,
            log_level=log_level,
        )
        daemon.run()
    except (StoredError, EndpointError) as error:
        _log.critical("failed", reason=str(error), error=type(error).__name__)
        sys.exit(1)


def _modes_options(command: Callable[..., None]) -> Callable[..., None]:
    return _settings_options(command, "file_mode", "folder_mode")


def _import_options(command: Callable[..., None]) -> Callable[..., None]:
    return _settings_options(command, "segment_bytes", "first_segment_bytes", "file_mode", "folder_mode")


@main.command()
@_base_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
def check(base_path: str | None, *, as_json: bool) -> None:
    """Compare journal, index and tree of a base that is not served, and change nothing.

    The exit status is 0 if all is well, 1 if there are findings, 2 if the base can't be checked. Notes tell
    what the next start puts right, and what is not ours. It makes an index in a temporary folder (TMPDIR).
    """
    offline_cli.check(base_path, as_json=as_json)


@main.command()
@_base_option
@click.option("--index", "index_only", is_flag=True, help="Rebuild the index only.")
@click.option("--tree", "tree_only", is_flag=True, help="Rebuild the tree only.")
@_modes_options
def rebuild(base_path: str | None, *, index_only: bool, tree_only: bool, **settings: int) -> None:
    """Make index and tree of a base that is not served anew from its journal.

    In the tree it writes what is missing or differs, and removes nothing. The exit status is 1 if the journal
    is damaged or a file can't be written, 2 if the base can't be rebuilt.
    """
    both = index_only == tree_only
    offline_cli.rebuild(base_path, settings, index_too=both or index_only, tree_too=both or tree_only)


@main.command()
@_base_option
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="POSITION",
    help="Only records behind this position.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many records.")
@click.option("--job", metavar="ID", help="Only records of this job.")
@click.option(
    "--show-secrets", is_flag=True, help="Don't hide keys, tokens, headers and env in run settings."
)
def dump(
    base_path: str | None, after: int, limit: int | None, job: str | None, *, show_secrets: bool
) -> None:
    """Print the records of a base that is not served, in order, as JSON lines.

    The exit status is 1 if the journal is damaged; the records before the damage are printed.
    """
    offline_cli.dump(base_path, Wanted(after, limit, job, show_secrets))


@main.command("import")
@_base_option
@click.option("--force", is_flag=True, help="Let the tree's values replace other, newer ones of the base.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@_import_options
@click.argument("source", type=click.Path(file_okay=False))
def import_(base_path: str | None, source: str, *, force: bool, as_json: bool, **settings: int) -> None:
    """Import another tree that Perstack wrote, from the folder SOURCE that holds its jobs/.

    The base must not be served; it is made if there is none. SOURCE is not changed. Events are added, but for
    those that the base holds byte for byte. A job or checkpoint that a client stored in the base, or that was
    imported after the file was last written, is kept where it differs, and named; so is a run setting.
    Cut short, it goes on when it is run again. Index and tree of the base follow at the next start.

    The exit status is 0 if the base now holds all there is, 1 if a file was left out or its value not taken,
    2 if nothing can be imported.
    """
    tree_cli.import_tree(base_path, source, settings, force=force, as_json=as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@click.argument("tree", type=click.Path(file_okay=False))
def audit(tree: str, *, as_json: bool) -> None:
    """Look through any tree that Perstack wrote: TREE is the folder that holds its jobs/. Nothing is changed.

    Names torn, invalid and misplaced files, links, what is foreign, and gaps that point to lost events.
    Gaps are signs, not proofs, and what leaves no gap is not seen; of a run that goes on, the last step is
    spared. In a tree that is being written, a file may be read half-written.

    The exit status is 0 if all is well, 1 if there are findings, 2 if the tree can't be read.
    """
    tree_cli.audit(tree, as_json=as_json)


@main.command("exec", context_settings={"allow_interspersed_args": False})
@_base_option
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="How long the tree may take to follow, before the daemon is stopped.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(base_path: str | None, command: tuple[str, ...], drain_seconds: float) -> None:
    """Run COMMAND with a daemon on the base, and stop that behind it.

    COMMAND finds the daemon by PERSTACK_STORED_BASE and PERSTACK_STORED_ENDPOINT. One that serves the base
    already is joined, and left running, unless another exec started it and ended before. Its log is
    .stored/exec.log in the base; it is set up by the environment variables of serve.

    SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on. The exit status is that of COMMAND, 128+n if signal n
    ended it, 127 if it is not found, 126 if it can't be run, 125 if there is no daemon.
    """
    tree_cli.run(base_path, command, drain_seconds)
