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

from . import log
from .daemon import Daemon
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


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """A flag and an environment variable for each setting."""
    for item in reversed(dataclasses.fields(Settings)):
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
