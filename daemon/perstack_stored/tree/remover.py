"""Removes the files of a deleted job or run from the tree.

Files go whose names the tree gives, where no other kind of file has that name. All others are foreign and
stay, and with them their folders. Folders are opened step by step, so that no link leads out of the base.
"""

import contextlib
import errno
import re
import time
from collections import deque
from collections.abc import Callable, Container, Iterable

from perstack_stored.datadir.filesystem import FileSystem, Listing
from perstack_stored.datadir.layout import TOP

from .expected_files import JOB_NAME
from .write import SETTING_NAME

UNLINKED_AT_ONCE = 100
"""Files removed before the tree worker pauses: on ext4 a long row of unlinks makes later writes slow."""
UNLINK_PAUSE_SECONDS = 0.01
_LISTED_AT_ONCE = 4096
_FOLDERS_AT_ONCE = 1000
"""Folders of runs looked at in one step: they may hold no file."""
Path = tuple[str, ...]
_OF_RUN = re.compile(r"event-\d{1,16}-\d{1,16}-[^.]+(?:\.n\d{4,9})?\.json")
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def is_of_run(name: str) -> bool:
    """Whether the tree gives this name to a file in the folder of a run."""
    return name == SETTING_NAME or _OF_RUN.fullmatch(name) is not None


def is_checkpoint(name: str) -> bool:
    """Whether the tree gives this name to a file in the folder of checkpoints."""
    return name.endswith(".json") and name != ".json"


def _of_run(folder: Path, kept: Container[Path]) -> Callable[[str], bool]:
    return lambda name: is_of_run(name) and (*folder, name) not in kept


class _EnoughError(Exception):
    """As many files were removed as were asked for."""


class _Runs:
    """The folders of a job's runs that are still to be looked at."""

    def __init__(self, job: str, listing: Listing) -> None:
        self.job = job
        self.next: deque[str] = deque()
        self._listing = listing

    def __bool__(self) -> bool:
        if not self.next:
            self.next.extend(self._listing.some(_LISTED_AT_ONCE))
        return bool(self.next)

    def close(self) -> None:
        self._listing.close()


class Remover:
    """Removes files below the base. A crash at any moment leaves the rest to be removed again.

    Attributes:
        removed: count of files.
    """

    def __init__(self, files: FileSystem, base_dir: int, beat: Callable[[], None]) -> None:
        """Prepare it; `beat` shows the worker's progress."""
        self._files = files
        self._base = base_dir
        self._beat = beat
        self.removed = 0
        self._until: int | None = None  # count at which to stop
        self._runs: _Runs | None = None  # of the job of which some files were removed

    def remove_some(self, job: str, most: int) -> bool:
        """Remove some files of a job, without a pause; returns whether none is left.

        A job may have very many runs: the next call goes on at the run at which this one stopped. Files that
        are written between two calls may stay.

        Raises:
            OSError: the file system refuses; the rest can be removed later.
        """
        if self._runs is not None and self._runs.job != job:
            self.stop()
        self._until = self.removed + most
        try:
            self.remove_job(job)
        except _EnoughError:
            return False
        finally:
            self._until = None
        return True

    def stop(self) -> None:
        """Let go of the job of which some files were removed."""
        if self._runs is not None:
            self._runs.close()
            self._runs = None

    def remove_job(self, job: str, kept: Container[Path] = ()) -> None:
        """Remove all files of a job but those that are kept.

        Raises:
            OSError: the file system refuses; the rest can be removed later.
        """
        with_job = self._open((*TOP, job))
        if with_job is None:
            return
        try:
            folder = (*TOP, job)
            self._unlink_all(with_job, lambda name: name == JOB_NAME and (*folder, name) not in kept)
            of_job = (*folder, "checkpoints")
            self._empty(with_job, "checkpoints", lambda n: is_checkpoint(n) and (*of_job, n) not in kept)
            self._empty_runs(with_job, None, (*folder, "runs"), kept)
        finally:
            self._files.close(with_job)
        self._drop((*TOP, job))

    def remove_run(self, job: str, run: str, checkpoints: Iterable[str], kept: Container[Path] = ()) -> None:
        """Remove the files of a run, and of its checkpoints, which are given by their ids, but those kept.

        Raises:
            OSError: the file system refuses; the rest can be removed later.
        """
        folder = (*TOP, job)
        names = (f"{id}.json" for id in checkpoints)
        of_checkpoints = {name for name in names if (*folder, "checkpoints", name) not in kept}
        with_job = self._open((*TOP, job))
        if with_job is None:
            return
        try:
            if of_checkpoints:
                self._empty(with_job, "checkpoints", of_checkpoints.__contains__)
            self._empty_runs(with_job, run, (*folder, "runs"), kept)
        finally:
            self._files.close(with_job)
        self._drop((*TOP, job))

    def remove_file(self, folders: Path, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OSError: the file system refuses.
        """
        fd = self._open(folders)
        if fd is None:
            return
        try:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                self._files.unlink(name, dir_fd=fd)
                self.removed += 1
        finally:
            self._files.close(fd)

    def _empty_runs(self, with_job: int, only: str | None, folder: Path, kept: Container[Path]) -> None:
        """Remove the files of a run, or of all runs of a job, and the folders that are empty then."""
        fd = self._open_in(with_job, "runs")
        if fd is None:
            return
        try:
            if only is None:
                self._empty_all_runs(fd, folder, kept)
            else:
                self._empty(fd, only, _of_run((*folder, only), kept))
        finally:
            self._files.close(fd)
        self._files.remove_dir("runs", dir_fd=with_job)

    def _empty_all_runs(self, fd: int, folder: Path, kept: Container[Path]) -> None:
        """Go on where the last step has stopped, if this is a step."""
        runs = None
        if self._until is not None:
            runs, self._runs = self._runs, None
        if runs is None:
            runs = _Runs(folder[1], self._files.begin_listing(fd))
        looked_at = 0
        try:
            while runs:
                if self._until is not None and looked_at == _FOLDERS_AT_ONCE:
                    raise _EnoughError
                self._empty(fd, runs.next[0], _of_run((*folder, runs.next[0]), kept))
                runs.next.popleft()
                looked_at += 1
        except _EnoughError:
            self._runs = runs
            raise
        finally:
            if self._runs is not runs:
                runs.close()

    def _empty(self, parent: int, name: str, is_ours: Callable[[str], bool]) -> None:
        """Remove our files of a folder, and the folder if it is empty then."""
        fd = self._open_in(parent, name)
        if fd is None:
            return
        try:
            self._unlink_all(fd, is_ours)
        finally:
            self._files.close(fd)
        self._files.remove_dir(name, dir_fd=parent)

    def _unlink_all(self, fd: int, is_ours: Callable[[str], bool]) -> None:
        while names := self._files.some_files(fd, is_ours, self._listed_at_once()):
            for name in names:
                if self.removed == self._until:
                    raise _EnoughError
                with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
                    self._files.unlink(name, dir_fd=fd)
                self.removed += 1
                if self.removed % UNLINKED_AT_ONCE == 0:
                    self._beat()
                    if self._until is not None:
                        continue  # the caller paces it
                    time.sleep(UNLINK_PAUSE_SECONDS)

    def _listed_at_once(self) -> int:
        """No more than this step removes; one, to see whether anything is left."""
        if self._until is None:
            return _LISTED_AT_ONCE
        return min(_LISTED_AT_ONCE, max(1, self._until - self.removed))

    def _drop(self, path: tuple[str, ...]) -> None:
        parent = self._open(path[:-1])
        if parent is not None:
            try:
                self._files.remove_dir(path[-1], dir_fd=parent)
            finally:
                self._files.close(parent)

    def _open(self, path: tuple[str, ...]) -> int | None:
        """Open a folder below the base; None if there is none, or something else stands on the way.

        Raises:
            OSError: something else stands where `jobs` was: its files may come back, and are not removed yet.
        """
        fd: int | None = self._files.open_dir(".", dir_fd=self._base)
        not_there = frozenset({errno.ENOENT})
        for name in path:
            if fd is None:
                return None
            parent = fd
            try:
                fd = self._open_in(parent, name, not_there)
            finally:
                self._files.close(parent)
            not_there = _NOT_THERE
        return fd

    def _open_in(self, parent: int, name: str, not_there: Container[int] = _NOT_THERE) -> int | None:
        try:
            return self._files.open_dir(name, dir_fd=parent)
        except OSError as error:
            if error.errno in not_there:
                return None
            raise
