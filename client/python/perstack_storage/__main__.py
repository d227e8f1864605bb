"""Entry of the command `perstack-storectl`."""

import signal
import sys

from perstack_storage._storectl.cli import main as run


def main() -> None:
    """Run the command and exit with its status."""
    end_at_lost_interrupts()
    sys.exit(run(sys.argv[1:]))


def end_at_lost_interrupts() -> None:
    """End the process where Python can't raise KeyboardInterrupt.

    Python ignores what is raised in a finalizer or in a callback of a weak reference. There, Ctrl-C would be
    lost, and a command that follows or serves would go on.
    """
    ignore = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            ignore(unraisable)
            return
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)

    sys.unraisablehook = hook


if __name__ == "__main__":
    main()
