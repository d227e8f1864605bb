"""The storage daemon perstack-stored."""

from perstack_storage._version import __version__

__all__ = ["__version__"]
