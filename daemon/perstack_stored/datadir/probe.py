"""Tests the system's features at the start: a missing one found later would interrupt the work.

A feature with a substitute selects it, once, here; a missing feature without one fails the start,
with one sentence. `daemon/docs/place.md` lists the needs.
"""

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator

import structlog

from perstack_stored.errors import ConfigError
from perstack_stored.model.names import ID_BYTES_MAX

from .filesystem import FILE_MODE, FileSystem
from .layout import ASIDE_NAMES, ASIDE_PREFIX, STAGING_NAME, STORED_NAME, TOP, FileSystemFeatures, Folders

# In `jobs/` they get a backslash as prefix, which no id has. Some file systems do not allow the second one.
_NAME = "probe"
_ODD = 'probe:*?"<>| .'
_OTHER = "probe.other"
_LINKED = "probe.linked"
_ACCENTED, _ACCENTED_APART = "probe-\u00e9", "probe-e\u0301"
_LONG = "p" * (ID_BYTES_MAX + len(".json"))
_ALL = (_NAME, _ODD, _OTHER, _LINKED, _ACCENTED, _LONG)
# Errors of calls that the file system does not have. Other errors are failures.
_LACKS = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENOENT,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EXDEV,
    }
)
_NO_MAPPING = frozenset(
    {errno.EACCES, errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
)
_NO_LOCKS = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
# A read-only file system can't be tested: reads work all the same.
_UNTRIED = frozenset({errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EROFS})
_PROC = "/proc/self/fd"

_log = structlog.get_logger()


def probe(files: FileSystem, folders: Folders, base: str) -> FileSystemFeatures:
    """Test the base, which must be locked, so that no other process writes there.

    Returns:
        the features of the file system for the tree's files.

    Raises:
        ConfigError: a needed feature is missing; the message names it.
        OSError: a call failed for another reason.
    """
    if not os.path.isdir(_PROC):
        raise ConfigError(f"{_PROC} is not there: the daemon needs /proc to be mounted")
    refuse_apart(files, folders, base)
    with (
        _folder(files, TOP[0], folders.base) as jobs,
        _folder(files, STAGING_NAME, folders.stored) as staging,
    ):
        if staging is None:
            return _untried("staging can't be opened")
        if jobs is not None and files.folds_case(jobs):
            raise _folds(f"{base}/{TOP[0]}")
        try:
            ways = _Probe(files, staging, base, "").run()
            if jobs is not None and files.are_apart(staging, jobs):
                _log.info("jobs_apart", path=f"{base}/{TOP[0]}")
                for name in ASIDE_NAMES:  # a tree that was killed may have left them
                    _remove(files, jobs, ASIDE_PREFIX + name)
                ways = _Probe(files, jobs, f"{base}/{TOP[0]}", ASIDE_PREFIX).run_for_tree()
            return ways
        except OSError as error:
            if error.errno not in _UNTRIED:
                raise
            return _untried(error.strerror or str(error))


def _remove(files: FileSystem, folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        files.unlink(name, dir_fd=folder)


def refuse_apart(files: FileSystem, folders: Folders, base: str) -> None:
    """Refuse a base with a part of `.stored` on another file system, or mounted by itself.

    Files are renamed between parts. Only `jobs` may be one: the tree is written and synced where that is.

    Raises:
        ConfigError: names the part.
    """
    with _folder(files, STAGING_NAME, folders.stored) as staging:
        parts = (("", folders.stored), ("/journal", folders.journal), (f"/{STAGING_NAME}", staging))
        for name, fd in parts:
            if fd is not None and files.are_apart(folders.base, fd):
                raise ConfigError(
                    f"{base}/{STORED_NAME}{name} is a file system or a mount of its own, and must be on that"
                    f" of {base}: mount it at {base} itself, or give a base on it"
                )


@contextlib.contextmanager
def _folder(files: FileSystem, name: str, parent: int) -> Iterator[int | None]:
    """An open folder; None if it can't be opened: its user reports that."""
    try:
        fd = files.open_dir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES}:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        files.close(fd)


def _untried(reason: str) -> FileSystemFeatures:
    """The features that every file system has."""
    _log.warning("place_untried", reason=reason, way="files of the tree are written aside and renamed")
    return FileSystemFeatures(unnamed=False, exchange=False)


def _folds(path: str) -> ConfigError:
    return ConfigError(
        f"{path} takes names that differ by case only for one: ids that differ so would replace each other's"
        " files. Use a folder without that (on ext4: chattr -F, while it is empty)"
    )


class _Probe:
    """Tests in one open folder."""

    def __init__(self, files: FileSystem, folder: int, path: str, prefix: str) -> None:
        self._files = files
        self._folder = folder
        self._path = path
        self._prefix = prefix

    def run(self) -> FileSystemFeatures:
        """Test all that the daemon needs."""
        return self._run(self._for_index)

    def run_for_tree(self) -> FileSystemFeatures:
        """Test what the tree needs, if it has a file system of its own."""
        return self._run(dict)

    def _run(self, also: Callable[[], dict[str, str]]) -> FileSystemFeatures:
        self._clear()  # a start that was killed may have left some
        try:
            self._names()
            lacks = also() | self._long_names()
            self._files.rename(
                self._name(_NAME), self._name(_OTHER), source_dir=self._folder, target_dir=self._folder
            )
            self._make(_NAME)
            exchange, unnamed = self._exchange(), self._unnamed()
        finally:
            self._clear()
        if exchange:
            lacks["exchange of names"] = exchange
        if unnamed:
            lacks["files without a name"] = unnamed
        if lacks:
            way = "written aside and renamed" if unnamed else "linked when they are whole"
            _log.warning("place_lacks", path=self._path, lacks=lacks, way=f"files of the tree are {way}")
        return FileSystemFeatures(unnamed=not unnamed, exchange=not exchange)

    def _for_index(self) -> dict[str, str]:
        """Test what the other files of the base need; return missing features that it can do without."""
        fd = self._files.open(_NAME, dir_fd=self._folder, write=True)
        try:
            self._mapping(fd)
            self._locks(fd)
            is_open = os.fstat(fd).st_mode & 0o077
        finally:
            self._files.close(fd)
        self._folder_sync()
        return {"modes": "others may read what is the daemon's alone"} if is_open else {}

    def _clear(self) -> None:
        for name in _ALL:
            _remove(self._files, self._folder, self._name(name))

    def _name(self, name: str) -> str:
        return self._prefix + name

    def _make(self, name: str) -> None:
        self._files.close(self._files.create(self._name(name), FILE_MODE, dir_fd=self._folder))

    def _has(self, name: str) -> bool:
        try:
            self._files.stat(self._name(name), dir_fd=self._folder)
        except FileNotFoundError:
            return False
        return True

    def _names(self) -> None:
        """Names that differ must be different files, for all characters that an id may have."""
        self._make(_NAME)
        if self._has(_NAME.upper()):
            raise _folds(f"the file system of {self._path}")
        try:
            self._make(_ODD)
            self._make(_ACCENTED)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EEXIST, errno.EPERM}:
                raise
            raise self._refusal(f"can't have every name that an id may be ({error.strerror})") from error
        if self._has(_ODD.rstrip(" .")):
            raise self._refusal(
                "drops dots and spaces at the end of a name: ids would replace each other's files"
            )
        if self._has(_ACCENTED_APART):
            raise self._refusal("takes different Unicode names for one: ids would replace each other's files")

    def _mapping(self, fd: int) -> None:
        self._files.truncate(fd, mmap.PAGESIZE)
        try:
            mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED).close()
        except OSError as error:
            if error.errno not in _NO_MAPPING:
                raise
            raise self._refusal(
                f"can't map files into memory for several processes, which the index needs ({error.strerror})"
            ) from error

    def _locks(self, fd: int) -> None:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise self._refusal(
                f"takes no locks of bytes, which the index needs ({error.strerror})"
            ) from error

    def _folder_sync(self) -> None:
        try:
            self._files.sync(self._folder)
        except OSError as error:
            if error.errno not in _LACKS | {errno.EBADF}:
                raise
            raise self._refusal(
                f"can't sync folders: a power cut would take what was acknowledged ({error.strerror})"
            ) from error

    def _long_names(self) -> dict[str, str]:
        try:
            self._make(_LONG)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return {"long names": f"files of ids near {ID_BYTES_MAX} bytes will be blocked"}
        return {}

    def _exchange(self) -> str:
        """Why two names can't be exchanged; "" if they can."""
        name, other = self._name(_NAME), self._name(_OTHER)
        before = self._files.stat(name, dir_fd=self._folder).st_ino
        try:
            self._files.exchange(name, other, source_dir=self._folder, target_dir=self._folder)
        except OSError as error:
            return _lack(error)
        same = self._files.stat(name, dir_fd=self._folder).st_ino == before
        return "the call changes nothing" if same else ""

    def _unnamed(self) -> str:
        """Why a file can't be created without a name and then linked; "" if it can."""
        try:
            fd = self._files.create_unnamed(FILE_MODE, dir_fd=self._folder)
            try:
                self._files.give_name(fd, self._name(_LINKED), dir_fd=self._folder)
            finally:
                self._files.close(fd)
        except OSError as error:
            return _lack(error)
        return ""

    def _refusal(self, what: str) -> ConfigError:
        return ConfigError(f"the file system of {self._path} {what}; use a base on another one")


def _lack(error: OSError) -> str:
    if error.errno not in _LACKS:
        raise error
    return error.strerror or str(error)
