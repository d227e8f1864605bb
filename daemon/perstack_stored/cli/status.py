"""Output and exit statuses of `status`. Other modules find out, and draw the screen."""

import os
import sys
import time

import click
import msgspec

from .status_facts import look
from .status_report import Report
from .status_screen import headline, lines, notes

STATUS_UNHEALTHY = 1


def status(
    base: str, *, endpoint: str | None, backups: str | None, timeout_seconds: float, as_json: bool
) -> None:
    """Print the state of a base and its daemon; exit with 1 if that is not healthy."""
    report = look(base, endpoint, backups, timeout_seconds)
    report.notes += notes(report)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        _show(report)
    if not report.healthy:
        sys.exit(STATUS_UNHEALTHY)


def _show(report: Report) -> None:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in headline(report):
        style = click.style(line, fg="green" if report.healthy else "red", bold=True)
        click.echo(style if coloured else line)
    for line in lines(report, time.time()):
        click.echo(line)
