"""Entry of the command `perstack-stored`."""

import signal
import sys

from perstack_stored.process.late_asyncio import import_asyncio_late
from perstack_stored.process.lost_interrupts import end_at_lost_interrupts


def main() -> None:
    """Run the command, or name a missing package."""
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C before there is anything to stop: no traceback
    end_at_lost_interrupts()
    import_asyncio_late()
    try:
        from perstack_stored.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name in {"click", "structlog", "msgspec", "crc32c", "zstandard"}:
            sys.exit(
                f"perstack-stored needs the Python package {error.name!r}, which is not installed."
                " Install this package again with its extra 'daemon'."
            )
        raise
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    run()


if __name__ == "__main__":
    main()
