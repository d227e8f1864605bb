"""Progress reports of long work at the start and in offline tools."""

from collections.abc import Callable

Working = Callable[[str], None]
"""Called by long work with its progress; see `Notifier.working`."""


def no_progress(status: str) -> None:
    """The `Working` of tools, which report to no service manager."""
