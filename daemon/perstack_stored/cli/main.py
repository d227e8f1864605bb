"""The command `perstack-stored`."""

import json
import sys
from collections.abc import Callable

import click
import structlog

from perstack_storage.protocol import EndpointError
from perstack_stored import __version__
from perstack_stored.access import curve_keys
from perstack_stored.config import sources as config_module
from perstack_stored.config.settings import ITEMS, key_of, show
from perstack_stored.config.sources import Sources
from perstack_stored.errors import ConfigError, StoredError
from perstack_stored.observe import log
from perstack_stored.observe.systemd import Notifier
from perstack_stored.process.stdin_watch import stop_with_stdin as end_with_stdin
from perstack_stored.server.daemon import Daemon

from .options import read_config, with_settings
from .output import Commands, complain, say

_log = structlog.get_logger()
_Command = Callable[..., None]
_STDIN_STOP_SECONDS = 30.0  # for the stop; the process ends then, in any case


@click.group(
    cls=Commands,
    lazy={
        "audit": "tree_commands:audit",
        "backup": "backup_commands:backup",
        "check": "offline_commands:check",
        "dump": "offline_commands:dump",
        "exec": "tree_commands:exec_",
        "import": "tree_commands:import_",
        "rebuild": "offline_commands:rebuild",
        "repair": "offline_commands:repair",
        "restore": "backup_commands:restore",
        "retention": "offline_commands:retention",
        "status": "status_command:status",
        "stream": "stream:stream",
        "tree": "tree_commands:tree",
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
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
@click.option("--name", default="client", show_default=True, help="Name of the client in the printed line.")
@click.option("--read-only", is_flag=True, help="The printed line gives read access only.")
@click.argument("file", type=click.Path())
def keygen(file: str, name: str, *, read_only: bool) -> None:
    """Make a CURVE key pair for the daemon or a client.

    FILE must not exist; only its owner can read it. The public key is printed, as a line for the list of
    clients (curve-clients). Its last word is the key itself: clients need the daemon's as
    PERSTACK_STORED_SERVER_KEY. The secret key is never printed.
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
    """Print the settings of `serve`, and where each comes from.

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
