"""Output of the commands for people: no name or value in it can control a terminal."""

import click

from perstack_storage.protocol import escaped


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(escaped(text), err=err)


def complain(reason: object) -> None:
    """Print an error to standard error."""
    say(f"perstack-stored: {reason}", err=True)


class Commands(click.Group):
    """A group of commands that escapes its errors about arguments, which may be file names."""

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
