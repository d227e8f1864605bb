"""Output of the commands for people: no name or value in it can control a terminal."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

from perstack_storage.protocol import escaped


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(escaped(text), err=err)


def complain(reason: object) -> None:
    """Print an error to standard error."""
    say(f"perstack-stored: {reason}", err=True)


class Commands(click.Group):
    """A group of commands that escapes its errors about arguments, which may be file names.

    Args:
        lazy: commands that are imported when they are asked for, as "module:name" of this package: a daemon
            starts without the offline tools.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As that of `click.Group`."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """As that of `click.Group`."""
        known = {*self.commands, *self._lazy}
        for name in {cmd_name} & self._lazy.keys() if cmd_name in known else self._lazy.keys():
            module, _, attribute = self._lazy[name].partition(":")
            self.add_command(getattr(importlib.import_module(f"{__package__}.{module}"), attribute))
        return super().get_command(ctx, cmd_name)  # for an unknown one, click looks for a near name in all

    def make_context(self, *args: object, **kwargs: object) -> click.Context:
        """As that of `click.Group`."""
        try:
            return super().make_context(*args, **kwargs)  # type: ignore[arg-type]
        except click.ClickException as error:
            raise _escaped(error) from None

    def invoke(self, ctx: click.Context) -> object:
        """As that of `click.Group`."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _escaped(error) from None


def _escaped(error: click.ClickException) -> click.ClickException:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error  # is the help, which has lines
    message = escaped(error.format_message())
    if isinstance(error, click.UsageError):
        return click.UsageError(message, error.ctx)
    return click.ClickException(message)
