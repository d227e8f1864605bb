"""How a tree is written: what the settings ask for, and what the file system can do."""

import os
from typing import NamedTuple

from perstack_stored.datadir.filesystem import FOLDER_MODE
from perstack_stored.datadir.layout import FileSystemFeatures, TreeModes

from .blocked import BlockedRecord


class TreeOptions(NamedTuple):
    """How a tree is written.

    Attributes:
        modes: permissions of new files and folders.
        features: what the file system can do.
        assists: only `write_part` is used, beside another process that has the cursor.
        passed_over: records that are not written.
    """

    modes: TreeModes = TreeModes()
    features: FileSystemFeatures = FileSystemFeatures()
    assists: bool = False
    passed_over: tuple[BlockedRecord, ...] = ()


def umask_for(modes: TreeModes) -> None:
    """Let the modes be exactly what was asked for."""
    os.umask(0o777 & ~(modes.file | modes.folder | FOLDER_MODE))  # the daemon's own: as the owner
