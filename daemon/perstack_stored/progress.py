"""How long work at the start and offline says that it goes on."""

from collections.abc import Callable

Working = Callable[[str], None]
"""Told by long work that it has come further, and where it is; see `Notifier.working`."""


def to_nobody(status: str) -> None:
    """The `Working` of tools, which no service manager waits for."""
