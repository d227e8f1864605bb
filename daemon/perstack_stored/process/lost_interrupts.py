"""Ctrl-C that comes where Python can't raise an exception."""

import signal
import sys


def end_at_lost_interrupts() -> None:
    """End the process where Python can't raise KeyboardInterrupt.

    Python ignores what is raised in a finalizer or in a callback of a weak reference. There, Ctrl-C would be
    lost, and a command that has work to do would go on.
    """
    ignore = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            ignore(unraisable)
            return
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)

    sys.unraisablehook = hook
