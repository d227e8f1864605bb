"""The Python client of perstack-stored; never imports the daemon."""

from perstack_storage._version import __version__

__all__ = ["__version__"]
