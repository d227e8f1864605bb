"""What a planted bug is."""

from typing import NamedTuple


class Bug(NamedTuple):
    """A change of the text of one of the daemon's files: `old` is there once."""

    name: str
    file: str
    old: str
    new: str
