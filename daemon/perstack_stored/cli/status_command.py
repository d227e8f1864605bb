"""The command `status`: its flags and help."""

import sys

import click

from perstack_stored.config.sources import Sources
from perstack_stored.errors import StoredError

from . import status as status_cli
from .options import read_config, with_settings
from .output import complain


@click.command()
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
    """Show whether a base is served, and its daemon healthy.

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
