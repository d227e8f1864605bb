"""Puts the files of the tree in their places, each complete or not at all.

A file is written without a name and then linked, or written aside and then exchanged with the old one. On a
file system without these calls it is written aside and renamed (`FileSystemFeatures`). Folders are opened
step by step from the data directory, so that no link on the way leads out of it.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable

from perstack_stored.datadir.filesystem import FOLDER_MODE
from perstack_stored.datadir.layout import ASIDE_NAMES, ASIDE_PREFIX, STAGING_NAME, TOP, DataDir
from perstack_stored.errors import TreeUnsyncedError

from .options import TreeOptions
from .write import Write

_FOLDERS_OPEN_MAX = 256
# Errors for a removed folder: ENOENT, but ext4 says EPERM where a file without a name is made in it.
_FOLDER_GONE = (errno.ENOENT, errno.EPERM)
# The name can't be used in the tree as it is, e.g. because a link or a folder was put in its place. One file
# must not stop all the others.
_BLOCKED = (
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EXDEV,  # a folder that is a mount of its own
    errno.EBUSY,  # a file that is one
)


def unsynced(error: OSError) -> TreeUnsyncedError:
    """Return the error for a failed sync."""
    # The kernel reports it once: the pages count as clean now, and the next sync would report a success.
    return TreeUnsyncedError(f"syncing the tree failed: {error}")


def is_blocked(error: OSError) -> bool:
    """Whether the error is about one name in the tree, as where a link was put in its place."""
    return error.errno in _BLOCKED


class FileWriter:
    """Writes files below the data directory, and keeps their folders open.

    Attributes:
        ground: descriptor on the file system that holds `jobs`; a sync of it covers all that was written.
    """

    def __init__(self, datadir: DataDir, options: TreeOptions, before_move: Callable[[], None]) -> None:
        """Open staging, and remove files that an earlier process left there.

        Args:
            datadir: the data directory.
            options: how files are written.
            before_move: called before `ground` changes; it completes a sync of the old one.
        """
        self._files = files = datadir.files
        self._base = datadir.folders.base
        self._modes = options.modes
        self._features = options.features
        self._before_move = before_move
        self._folders: OrderedDict[tuple[str, ...], int] = OrderedDict()
        stored = datadir.folders.stored
        files.make_dir(STAGING_NAME, FOLDER_MODE, dir_fd=stored)
        self._own_staging = self._staging = files.open_dir(STAGING_NAME, dir_fd=stored)
        self._aside = ASIDE_NAMES[options.assists]
        # The file system to sync: the base's, or that of `jobs` once that is found to be another one.
        self.ground = self._base
        self._device = 0
        for left in files.list_dir(self._staging):
            if left == self._aside or not options.assists:
                files.unlink(left, dir_fd=self._staging)

    def begin(self, jobs: Iterable[tuple[str, ...]]) -> None:
        """Look up the folders of some jobs by name again: another program may have moved one away.

        Raises:
            OSError: `jobs` can't be opened; without it there is no tree.
        """
        self._let_go_if_moved(TOP, self._base)
        top = self._folder(TOP)
        for job in jobs:
            self._let_go_if_moved(job, top)

    def sync_files(self) -> None:
        """Sync all files that were written.

        Raises:
            TreeUnsyncedError: they may not be on disk; another process must write them again.
        """
        self._sync_ground(self.ground)

    def close(self) -> None:
        """Close the folders; no sync may be in progress."""
        while self._folders:
            self._files.close(self._folders.popitem()[1])
        self._files.close(self._own_staging)
        if self.ground != self._base:
            self._files.close(self.ground)

    def exists(self, write: Write) -> bool:
        """Whether there is a file; raises OSError if that is unknown. It makes no folder."""
        try:
            self._files.stat(write.name, dir_fd=self._folder(write.folders, makes=False))
        except OSError as error:
            if error.errno in {*_FOLDER_GONE, *_BLOCKED}:
                return False
            raise  # the file may exist, and be newer
        return True

    def write(self, write: Write, *, replay: bool) -> None:
        """Write a file.

        Args:
            write: the file.
            replay: the file may exist already with the right content.

        Raises:
            OSError: it can't be written; `is_blocked` says whether others may still be written.
            TreeUnsyncedError: `jobs` moved to another file system, and earlier files are not synced.
        """
        try:
            self._put(write, replay=replay)
        except OSError as error:
            if error.errno not in _FOLDER_GONE:
                raise
            # The folder was removed while it was open here: create it again, or raise another error.
            self._forget(write.folders)
            self._put(write, replay=replay)

    def _put(self, write: Write, *, replay: bool) -> None:
        folder = self._folder(write.folders)
        content = write.content()
        if (replay or not self._features.unnamed) and self._is_there(folder, write.name, content):
            return
        if not self._features.unnamed:
            self._put_by_rename(folder, write.name, content)
            return
        fd = self._files.create_unnamed(self._modes.file, dir_fd=folder)
        try:
            self._files.write(fd, [content], 0)
            try:
                self._files.give_name(fd, write.name, dir_fd=folder)
            except FileExistsError:
                if not self._holds(folder, write.name, content):
                    self._replace(fd, folder, write.name)
        finally:
            self._files.close(fd)

    def _put_by_rename(self, folder: int, name: str, content: bytes) -> None:
        """Write a file under a name in staging, then rename it to its place."""
        try:
            fd = self._files.create(self._aside, self._modes.file, dir_fd=self._staging)
        except FileExistsError:  # it could not be removed the last time
            self._files.unlink(self._aside, dir_fd=self._staging)
            fd = self._files.create(self._aside, self._modes.file, dir_fd=self._staging)
        try:
            try:
                self._files.write(fd, [content], 0)
            finally:
                self._files.close(fd)
            self._rename_aside(folder, name)
        except OSError:
            self._files.unlink(self._aside, dir_fd=self._staging)  # it may be what fills the disk
            raise

    def _rename_aside(self, folder: int, name: str) -> None:
        self._files.rename(self._aside, name, source_dir=self._staging, target_dir=folder)

    def _is_there(self, folder: int, name: str, content: bytes) -> bool:
        # Tested before a file is made: after a crash most are there, and ext4 may take long to make one.
        try:
            return self._holds(folder, name, content)
        except FileNotFoundError:
            return False

    def _holds(self, folder: int, name: str, content: bytes) -> bool:
        """Whether a file has this content already, as after a replay."""
        if stat.S_ISDIR(self._files.stat(name, dir_fd=folder).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        fd = self._files.open(name, dir_fd=folder)
        try:
            if self._files.size(fd) != len(content):
                return False
            # After a failed write-back, the page cache holds bytes that the disk does not.
            self._files.forget_cached(fd)
            return self._files.read(fd, len(content), 0) == content
        finally:
            self._files.close(fd)

    def _replace(self, fd: int, folder: int, name: str) -> None:
        # Not rename over the old file: ext4 flushes then (3,000 to 8,000/s against 10,000 to 35,000/s).
        try:
            self._files.give_name(fd, self._aside, dir_fd=self._staging)
        except FileExistsError:  # it could not be removed the last time
            self._files.unlink(self._aside, dir_fd=self._staging)
            self._files.give_name(fd, self._aside, dir_fd=self._staging)
        if not self._features.exchange:
            try:
                self._rename_aside(folder, name)
            except OSError:
                self._files.unlink(self._aside, dir_fd=self._staging)
                raise
            return
        try:
            self._files.exchange(self._aside, name, source_dir=self._staging, target_dir=folder)
        finally:
            self._files.unlink(self._aside, dir_fd=self._staging)

    def _folder(self, folders: tuple[str, ...], *, makes: bool = True) -> int:
        fd = self._folders.get(folders)
        if fd is not None:
            self._folders.move_to_end(folders)
            return fd
        # Step by step from the base, so that no link on the way leads out of it.
        parent = self._folder(folders[:-1], makes=makes) if len(folders) > 1 else self._base
        is_new = makes and self._files.make_dir(folders[-1], self._modes.folder, dir_fd=parent)
        fd = self._files.open_dir(folders[-1], dir_fd=parent)
        try:
            if folders == TOP:
                self._stand_on(fd)
            else:
                self._refuse_foreign(fd, folders[-1], is_new=is_new)
        except OSError:
            self._files.close(fd)
            raise
        self._folders[folders] = fd
        if len(self._folders) > _FOLDERS_OPEN_MAX:
            self._files.close(self._folders.popitem(last=False)[1])
        return fd

    def _stand_on(self, top: int) -> None:
        """Use the file system of `jobs` for staging and syncs: it may be a mount of its own."""
        files = self._files
        is_apart = files.are_apart(self._own_staging, top)
        device, before = files.device(top), self.ground
        if not is_apart and before == self._base:
            self._device = device
            return
        ground = files.open_dir(".", dir_fd=top) if is_apart else self._base
        self._before_move()
        if self._device not in {0, device}:
            # It was mounted since: files on both file systems must be on disk before the cursor moves.
            self._sync_ground(before)
            self._sync_ground(ground)
        if before != self._base:
            files.close(before)
        self.ground, self._device = ground, device
        self._staging = ground if is_apart else self._own_staging
        self._aside = (ASIDE_PREFIX if is_apart else "") + self._aside.removeprefix(ASIDE_PREFIX)

    def _refuse_foreign(self, fd: int, name: str, *, is_new: bool) -> None:
        """Refuse a folder in which files could not be synced, replaced or named exactly."""
        if self._files.device(fd) != self._device:
            raise OSError(errno.EXDEV, "the folder is on another file system than jobs/", name)
        if not is_new and self._files.folds_case(fd):  # a new one is as the one that it is in
            raise OSError(errno.ENOTDIR, "the folder takes names that differ by case only for one", name)

    def _let_go_if_moved(self, folders: tuple[str, ...], parent: int) -> None:
        """Close a folder that was moved away, and all below it: files there would not be found."""
        fd = self._folders.get(folders)
        if fd is not None and not self._files.is_at(fd, folders[-1], dir_fd=parent):
            self.let_go(folders)

    def let_go(self, folders: tuple[str, ...]) -> None:
        """Close a folder and all below it: files of it were removed, and maybe the folder."""
        for held in [held for held in self._folders if held[: len(folders)] == folders]:
            self._files.close(self._folders.pop(held))

    def _forget(self, folders: tuple[str, ...]) -> None:
        for i in range(1, len(folders) + 1):
            fd = self._folders.pop(folders[:i], None)
            if fd is not None:
                self._files.close(fd)

    def _sync_ground(self, ground: int) -> None:
        try:
            self._files.sync_all(ground)
        except OSError as error:
            raise unsynced(error) from error
