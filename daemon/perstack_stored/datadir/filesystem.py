"""The only access to the file system of journal, cursors and tree.

It knows no formats. A directory is named by an open descriptor, so that no symbolic link can lead
outside the base. Tests replace `FileSystem` by a simulated disk.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_EXCHANGE = 2
_IOV_MAX = 1024
_FS_IOC_GETFLAGS = 0x80086601
_FS_CASEFOLD_FL = 0x40000000
_NO_SUCH_NAME = "no-such-name"
WHOLE_BYTES_MAX = 1 << 29  # of a file that is read at once

Buffer = bytes | bytearray | memoryview

# Files in `.stored` are for the daemon's user alone: a user who may read a file may also lock it.
FILE_MODE = 0o600
FOLDER_MODE = 0o700
STORED_MODE = 0o710
"""Mode of `.stored` itself: the group may pass through it to the socket, and list nothing."""


class Listing:
    """Names in a directory, some at a time, in no particular order.

    Names that come or go meanwhile may be among them or not.
    """

    def __init__(self, dir_fd: int) -> None:
        """Begin it; `close` ends it."""
        # A descriptor of its own: what shares one shares the offset in the directory.
        self._fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        self._ending = ExitStack()
        try:
            self._entries = self._ending.enter_context(os.scandir(self._fd))
        except BaseException:
            os.close(self._fd)
            raise

    def some(self, most: int) -> list[str]:
        """The next names, at most this many; none at the end."""
        return [entry.name for entry in islice(self._entries, most)]

    def close(self) -> None:
        """Close it."""
        self._ending.close()
        os.close(self._fd)


class FileSystem:
    """Real files. Every method raises OSError as its system call does."""

    def __init__(self) -> None:
        self._own_fds: int | None = None

    # --- directories -------------------------------------------------------------------------------

    def open_dir(self, name: str, *, dir_fd: int | None = None) -> int:
        """Open a directory; a symbolic link as the last component is refused."""
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)

    def make_dir(self, name: str, mode: int, *, dir_fd: int | None = None) -> bool:
        """Make a directory; return whether it is new."""
        try:
            os.mkdir(name, mode, dir_fd=dir_fd)
        except FileExistsError:
            return False
        return True

    def list_dir(self, dir_fd: int) -> list[str]:
        """Names in a directory, in no particular order."""
        # Threads share the descriptor, and with it the offset in the directory: each needs its own.
        own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            return os.listdir(own)
        finally:
            os.close(own)

    def begin_listing(self, dir_fd: int) -> Listing:
        """Begin to list a directory that may hold very many names."""
        return Listing(dir_fd)

    def some_files(self, dir_fd: int, wanted: Callable[[str], bool], most: int) -> list[str]:
        """Names of some regular files in a directory: those that are wanted, at most this many."""
        own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            with os.scandir(own) as entries:
                files = (e.name for e in entries if wanted(e.name) and e.is_file(follow_symlinks=False))
                return list(islice(files, most))
        finally:
            os.close(own)

    def remove_dir(self, name: str, *, dir_fd: int) -> bool:
        """Remove a directory if it is empty; return whether it is gone."""
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
                return False
            raise
        return True

    def free_bytes(self, fd: int) -> int:
        """Bytes that this user may still write to the file system of an open file or directory."""
        room = os.fstatvfs(fd)
        return room.f_bavail * room.f_frsize

    def device(self, fd: int) -> int:
        """Device number of the file system of an open file or directory."""
        return os.fstat(fd).st_dev

    def are_apart(self, source_dir: int, target_dir: int) -> bool:
        """Whether files can't be renamed between two directories: another file system, or mount."""
        if self.device(source_dir) != self.device(target_dir):
            return True
        try:
            # The kernel compares the mounts before it looks up the name, which does not exist.
            os.rename(_NO_SUCH_NAME, _NO_SUCH_NAME, src_dir_fd=source_dir, dst_dir_fd=target_dir)
        except OSError as error:
            return error.errno == errno.EXDEV
        return False

    def folds_case(self, dir_fd: int) -> bool:
        """Whether a directory ignores the case of names (`chattr +F`)."""
        try:
            flags = fcntl.ioctl(dir_fd, _FS_IOC_GETFLAGS, bytes(8))
        except OSError:
            return False  # the file system has no such flag
        return bool(int.from_bytes(flags[:4], "little") & _FS_CASEFOLD_FL)

    # --- files -------------------------------------------------------------------------------------

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        """Create a file that must not exist yet, open for reading and writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, mode, dir_fd=dir_fd)

    def open(self, name: str, *, dir_fd: int, write: bool = False) -> int:
        """Open an existing regular file."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(name, flags, dir_fd=dir_fd)

    def create_unnamed(self, mode: int, *, dir_fd: int) -> int:
        """Create a file that has no name yet (O_TMPFILE); `give_name` gives it one."""
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def give_name(self, fd: int, name: str, *, dir_fd: int) -> None:
        """Link a file made by `create_unnamed`; FileExistsError if the name is taken."""
        # Through /proc, because AT_EMPTY_PATH needs a capability on older kernels.
        if self._own_fds is None:
            self._own_fds = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.link(str(fd), name, src_dir_fd=self._own_fds, dst_dir_fd=dir_fd, follow_symlinks=True)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """Size of an open file in bytes."""
        return os.fstat(fd).st_size

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        """Stat a name without following a link."""
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def is_at(self, fd: int, name: str, *, dir_fd: int) -> bool:
        """Whether a name refers to the file that a descriptor is open on."""
        try:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        held = os.fstat(fd)
        return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)

    def is_alone(self, fd: int) -> bool:
        """Whether no other descriptor of any process is open on a file; False where that can't be known.

        The kernel grants a lease to write only then. It is given back at once: a file that has no name that
        others look up stays alone.
        """
        try:
            # A lease that is broken sends a signal: by default one that would end this process.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return False
        return True

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes; fewer only at the end of the file."""
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < length:
            data = os.pread(fd, length - got, offset + got)
            if not data:
                break
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers in sequence, also after partial writes of the kernel."""
        pending = list(buffers)
        while pending:
            chunk = pending[:_IOV_MAX]
            done = os.pwritev(fd, chunk, offset)
            offset += done
            if done == sum(map(len, chunk)):
                del pending[:_IOV_MAX]
                continue
            while pending and done >= len(pending[0]):
                done -= len(pending.pop(0))
            if done:
                pending[0] = memoryview(pending[0])[done:]

    def allocate(self, fd: int, offset: int, length: int) -> None:
        """Reserve space, so that a later write there can't fail on a full disk."""
        os.posix_fallocate(fd, offset, length)

    def forget_cached(self, fd: int) -> None:
        """Drop the page cache of a file except unwritten pages: reads then return what is on disk."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.ftruncate(fd, size)

    # --- names -------------------------------------------------------------------------------------

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        """Rename, replacing the target in one step."""
        os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)

    def exchange(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        """Swap two names in one step (renameat2 with RENAME_EXCHANGE)."""
        if not hasattr(_libc, "renameat2"):  # glibc before 2.28
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), target)
        if _libc.renameat2(
            source_dir, os.fsencode(source), target_dir, os.fsencode(target), _RENAME_EXCHANGE
        ):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), target)

    def link(self, name: str, *, source_dir: int, target_dir: int) -> None:
        """Give a file the same name in a second directory."""
        os.link(name, name, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=dir_fd)

    # --- durability --------------------------------------------------------------------------------

    def sync_data(self, fd: int) -> None:
        """Fdatasync: content and size are on disk when it returns."""
        os.fdatasync(fd)

    def sync(self, fd: int) -> None:
        """Fsync: the names of a directory are on disk when it returns."""
        os.fsync(fd)

    def sync_all(self, fd: int) -> None:
        """Syncfs: everything written to the file system that holds `fd` is on disk when it returns."""
        if _libc.syncfs(fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


def read_whole(files: FileSystem, name: str, *, dir_fd: int, most: int = WHOLE_BYTES_MAX) -> bytes | None:
    """Read a small file; None if there is none.

    Raises:
        OSError: it can't be read, or is larger than `most`: then this program did not write it.
    """
    try:
        fd = files.open(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        size = files.size(fd)
        if size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        return files.read(fd, size, 0)
    finally:
        files.close(fd)


def atomic_replace(files: FileSystem, name: str, data: bytes, mode: int, *, dir_fd: int) -> None:
    """Replace a file so that after any crash it has either its old or its new content."""
    temporary = f"{name}.new"
    with contextlib.suppress(FileNotFoundError):
        files.unlink(temporary, dir_fd=dir_fd)
    fd = files.create(temporary, mode, dir_fd=dir_fd)
    try:
        files.write(fd, [data], 0)
        files.sync_data(fd)
    finally:
        files.close(fd)
    files.rename(temporary, name, source_dir=dir_fd, target_dir=dir_fd)
    files.sync(dir_fd)
