"""The layout of a base: its folders, their names and modes."""

import contextlib
import errno
import os
import pwd
from typing import NamedTuple

from perstack_stored.errors import ConfigError

from .filesystem import FOLDER_MODE, STORED_MODE, FileSystem

STORED_NAME = ".stored"
STAGING_NAME = "staging"
INDEX_NAME = "index.sqlite"
TOP = ("jobs",)
"""Folders that hold the tree, relative to the base."""
ASIDE_NAMES = ("aside", "aside.helper")
"""Names of files that are written aside, by the first tree process and by its helper."""
ASIDE_PREFIX = "\\"
"""Prefix of these names in `jobs/`, if that is a file system of its own: no id may have a backslash."""


class Folders(NamedTuple):
    """Descriptors of a base's folders."""

    base: int
    stored: int
    journal: int


def open_folders(files: FileSystem, base: str) -> Folders:
    """Open the folders of a base that is set up."""
    base_dir = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stored = files.open_dir(STORED_NAME, dir_fd=base_dir)
    return Folders(base_dir, stored, files.open_dir("journal", dir_fd=stored))


class DataDir(NamedTuple):
    """An open data directory: its absolute path, the file system, and its folders."""

    path: str
    files: FileSystem
    folders: Folders

    @property
    def index_path(self) -> str:
        """Path of the index."""
        return os.path.join(self.path, STORED_NAME, INDEX_NAME)


class TreeModes(NamedTuple):
    """Modes of files and folders of the tree."""

    file: int = 0o640
    folder: int = 0o750


class FileSystemFeatures(NamedTuple):
    """Features of the file system that the tree uses; tested at the start, see `datadir/probe.py`.

    Attributes:
        unnamed: a file can be written without a name and then linked; else it gets a name in staging first.
        exchange: two names can be exchanged; else the new file is renamed over the old one.
    """

    unnamed: bool = True
    exchange: bool = True


def set_up(base: str, folder_mode: int) -> None:
    """Make missing folders of a base; `folder_mode` is for the base itself."""
    os.makedirs(base, folder_mode, exist_ok=True)
    for name, mode in (("", STORED_MODE), ("journal", FOLDER_MODE), (STAGING_NAME, FOLDER_MODE)):
        path = os.path.join(base, STORED_NAME, name).rstrip("/")
        if os.path.islink(path):
            raise NotADirectoryError(errno.ENOTDIR, "a symbolic link is not followed", path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)


def open_base(files: FileSystem, path: str) -> DataDir:
    """Open the folders of a base that was set up before. Nothing is created, and nothing locked.

    Raises:
        ConfigError: the folder is no base, or this user may not open it.
    """
    try:
        return DataDir(path, files, open_folders(files, path))
    except PermissionError as error:
        raise not_yours(path, error) from error
    except OSError as error:
        reason = f"its folder .stored/journal can't be opened ({error.strerror})"
        raise ConfigError(f"{path} is not the base of a daemon: {reason}") from error


def not_yours(path: str, error: OSError) -> ConfigError:
    """Error of a user who may not open a base: the group may only connect, and read the tree."""
    try:
        owner = os.stat(os.path.join(path, STORED_NAME), follow_symlinks=False).st_uid
    except OSError:
        return ConfigError(f"this user may not look into {path} ({error.strerror})")
    if owner == os.geteuid():
        return ConfigError(
            f"{path}/{STORED_NAME} can't be opened, though it is this user's ({error.strerror})"
        )
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"with id {owner}"
    return ConfigError(
        f"{path}/{STORED_NAME} is open to its owner alone, the user {name}: run this as that user, or as root"
    )
