"""Entry of the command `perstack-stored`."""

import sys


def main() -> None:
    """Run the command, or say what is missing."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        if error.name in {"click", "structlog", "msgspec", "crc32c"}:
            sys.exit(
                f"perstack-stored needs the Python package {error.name!r}, which is not installed."
                " Install the daemon's parts: pip install 'perstack-stored[daemon]'"
            )
        raise
    run()


if __name__ == "__main__":
    main()
