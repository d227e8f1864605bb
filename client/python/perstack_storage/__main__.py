"""Entry of the command `perstack-storectl`."""

import sys

from perstack_storage._storectl.cli import main as run


def main() -> None:
    """Run the command and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
