"""The flags of settings, and how a command reads them."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from perstack_storage.protocol import EndpointError
from perstack_stored.config.settings import ITEMS, Item, Settings, key_of, show
from perstack_stored.config.sources import CONFIG_VARIABLE, Config, Sources
from perstack_stored.errors import StoredError

from .output import complain

_Command = Callable[..., None]


class _Octal(click.ParamType[int]):
    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(value, 8)
        except ValueError:
            self.fail(f"{value!r} is not an octal mode", param, ctx)


def _option(item: Item) -> Callable[[_Command], _Command]:
    """The flag of a setting. Its value is None if it is not given: environment and file come next."""
    about, kind = item.metadata, item.metadata["kind"]
    key = key_of(item)
    names = (f"--{key}/--no-{key}" if kind == "flag" else f"--{key}", item.name)
    default = "" if item.default in ("", ()) else f"  [default: {show(item, item.default).strip(chr(34))}]"
    text = about["help"][:1].upper() + about["help"][1:] + "." + default
    arguments: dict[str, Any] = {"default": None, "help": text}
    if kind == "choice":
        arguments["type"] = click.Choice(about["choices"])
    elif kind in {"integer", "mode"}:
        arguments["type"] = _Octal() if kind == "mode" else click.INT
    elif kind != "flag":
        arguments |= {"metavar": about["metavar"], "multiple": kind == "words", "type": str}
    return click.option(*names, **arguments)


def with_settings(*names: str) -> Callable[[_Command], _Command]:
    """Add `--config` and the flags of the named settings, or of all; the command gets their `Sources`."""

    def decorate(command: _Command) -> _Command:
        chosen = [ITEMS[name] for name in names] if names else list(ITEMS.values())

        @functools.wraps(command)
        def configured(config: str | None, **arguments: Any) -> None:
            given = {item.name: arguments.pop(item.name) for item in chosen}
            flags = {name: value for name, value in given.items() if value not in (None, ())}
            command(Sources(config, flags, os.environ), **arguments)

        wrapped: _Command = configured
        for item in reversed(chosen):
            wrapped = _option(item)(wrapped)
        return click.option(
            "--config",
            metavar="FILE",
            help=f"Settings in TOML, under flags and environment. Default: {CONFIG_VARIABLE}, or none.",
        )(wrapped)

    return decorate


def read_config(sources: Sources, status: int = 2, *, resolve: bool = False) -> Config:
    """Read the settings for a command that exits with `status` if they are invalid."""
    try:
        found = sources.read()
        return found.resolved() if resolve else found
    except (StoredError, EndpointError) as error:
        complain(error)
        sys.exit(status)


def read_settings(sources: Sources) -> Settings:
    """Read the settings for a command that exits with 2 if they are invalid."""
    return read_config(sources).settings
