"""The calls of `os` and libc on a simulated disk, as the machine that runs has them.

`simulated()` puts them beneath the class `Files`, so that all of the daemon's own code runs: its loops around
short writes, too.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from tests.simulation.disk import Disk, File, Folder, Node
from tests.simulation.kernel import Kernel

_OWN_FDS = -2  # /proc/self/fd
_MTIME_NS = 1_700_000_000_000_000_000


class _DirEntry(NamedTuple):
    """A name in a folder, and whether it is a file."""

    name: str
    is_a_file: bool

    def is_file(self, *, follow_symlinks: bool) -> bool:
        """Whether it is a regular file."""
        return self.is_a_file


def _kernel() -> Kernel:
    return Kernel.current


class SimulatedOs:
    """Stands in for the module `os` beneath `Files`; what does no I/O is the real one's."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(os, name)
        assert not callable(value) or name in {"strerror", "fsencode", "stat_result"}, (
            f"os.{name} is not simulated"
        )
        return value

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        kernel = _kernel()
        making = flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
        kernel.enter("create" if making else "open")
        if path == "/proc/self/fd":
            return kernel.new_fd(_OWN_FDS)
        folder = kernel.folder(dir_fd)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            if not kernel.disk.ways.unnamed:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
            return kernel.new_fd(File(stat.S_IFREG | mode))
        if path == ".":
            return kernel.new_fd(folder)
        found = folder.names.get(path)
        if flags & os.O_CREAT:
            if found is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            found = File(stat.S_IFREG | mode)
            kernel.disk.change((folder, path, found))
            kernel.changed()
        found = kernel.look_up(dir_fd, path)
        if flags & os.O_DIRECTORY and not isinstance(found, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return kernel.new_fd(found)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        kernel = _kernel()
        kernel.enter("mkdir")
        folder = kernel.folder(dir_fd)
        if path in folder.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        kernel.disk.change((folder, path, Folder(stat.S_IFDIR | mode)))

    def listdir(self, path: int) -> list[str]:
        kernel = _kernel()
        kernel.enter("listdir")
        names = list(kernel.folder(path).names)
        kernel.random.shuffle(names)
        return names

    def link(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        kernel = _kernel()
        kernel.enter("link")
        assert kernel.node(src_dir_fd) == _OWN_FDS
        assert follow_symlinks
        folder = kernel.folder(dst_dir_fd)
        if dst in folder.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), dst)
        kernel.disk.change((folder, dst, kernel.file(int(src))))
        kernel.changed()

    def close(self, fd: int) -> None:
        kernel = _kernel()
        kernel.enter("close")
        kernel.close(fd)

    def fstat(self, fd: int) -> os.stat_result:
        kernel = _kernel()
        kernel.enter("stat")
        return _stat(kernel.node(fd))

    def stat(self, path: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        kernel = _kernel()
        kernel.enter("stat")
        return _stat(kernel.look_up(dir_fd, path))

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        kernel = _kernel()
        kernel.enter("pread")
        if kernel.fault_odds and length > 1 and kernel.random.random() < kernel.fault_odds:
            length = kernel.random.randint(1, length)
        return bytes(kernel.file(fd).data[offset : offset + length])

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        kernel = _kernel()
        data = b"".join(buffers)
        file = kernel.file(fd)

        def tear(disk: Disk, random: Random) -> None:
            for node in disk.nodes():
                if isinstance(node, File) and node.number == file.number:
                    node.write(data[: random.randint(0, len(data))], offset)

        before = len(kernel.faults)
        try:
            kernel.enter("pwritev", tear)
        except OSError:
            if len(kernel.faults) > before and kernel.random.random() < 0.5:
                file.write(data[: kernel.random.randint(0, len(data))], offset)
            raise
        if kernel.fault_odds and len(data) > 1 and kernel.random.random() < 3 * kernel.fault_odds:
            data = data[: kernel.random.randint(1, len(data))]  # a short write
        file.write(data, offset)
        kernel.changed()
        return len(data)

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        kernel = _kernel()
        kernel.enter("fallocate")
        file = kernel.file(fd)
        if offset + length > len(file.data):
            file.resize(offset + length)

    def posix_fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        kernel = _kernel()
        kernel.enter("fadvise")
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        kernel.file(fd).forget()

    def ftruncate(self, fd: int, length: int) -> None:
        kernel = _kernel()
        kernel.enter("truncate")
        kernel.file(fd).resize(length)
        kernel.changed()

    def rename(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        kernel = _kernel()
        kernel.enter("rename")
        node = kernel.look_up(src_dir_fd, src)
        kernel.disk.change((kernel.folder(src_dir_fd), src, None), (kernel.folder(dst_dir_fd), dst, node))
        kernel.changed()

    def exchange(self, src_dir: int, src: str, dst_dir: int, dst: str) -> None:
        kernel = _kernel()
        kernel.enter("exchange")
        if not kernel.disk.ways.exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), dst)
        one, other = kernel.look_up(src_dir, src), kernel.look_up(dst_dir, dst)
        kernel.disk.change((kernel.folder(src_dir), src, other), (kernel.folder(dst_dir), dst, one))
        kernel.changed()

    def unlink(self, path: str, *, dir_fd: int) -> None:
        kernel = _kernel()
        kernel.enter("unlink")
        kernel.look_up(dir_fd, path)
        kernel.disk.change((kernel.folder(dir_fd), path, None))
        kernel.changed()

    def rmdir(self, path: str, *, dir_fd: int) -> None:
        kernel = _kernel()
        kernel.enter("rmdir")
        node = kernel.look_up(dir_fd, path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if node.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        kernel.disk.change((kernel.folder(dir_fd), path, None))
        kernel.changed()

    @contextmanager
    def scandir(self, fd: int) -> Iterator[Iterator["_DirEntry"]]:
        kernel = _kernel()
        kernel.enter("listdir")
        folder = kernel.folder(fd)
        yield iter([_DirEntry(name, isinstance(node, File)) for name, node in list(folder.names.items())])

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd)

    def fsync(self, fd: int) -> None:
        self._sync("fsync", fd)

    def _sync(self, name: str, fd: int) -> None:
        kernel = _kernel()
        node = kernel.node(fd)
        if isinstance(node, Folder):
            kernel.enter(name)
            kernel.disk.sync_names(node)
            return
        file = kernel.file(fd)
        sync = file.begin_sync()
        try:
            kernel.enter(name)
        except OSError:
            file.drop(kernel.random)
            kernel.errors += 1
            with contextlib.suppress(OSError):
                kernel.report_errors(fd, file)
            raise
        kernel.report_errors(fd, file)
        sync.end()

    def syncfs(self, fd: int) -> None:
        kernel = _kernel()
        kernel.node(fd)
        try:
            kernel.enter("syncfs")
        except OSError:
            kernel.fail_write_back(0.7)
            with contextlib.suppress(OSError):
                kernel.report_all_errors(fd)
            raise
        kernel.disk.sync_all()
        kernel.report_all_errors(fd)


class SimulatedLibc:
    """Stands in for libc beneath `Files`."""

    def __init__(self, system: SimulatedOs) -> None:
        self._os = system

    def renameat2(self, src_dir: int, src: bytes, dst_dir: int, dst: bytes, flags: int) -> int:
        assert flags == 2, "only RENAME_EXCHANGE is simulated"
        return _as_c(lambda: self._os.exchange(src_dir, os.fsdecode(src), dst_dir, os.fsdecode(dst)))

    def syncfs(self, fd: int) -> int:
        return _as_c(lambda: self._os.syncfs(fd))


def _as_c(call: Callable[[], None]) -> int:
    try:
        call()
    except OSError as error:
        ctypes.set_errno(error.errno or errno.EIO)
        return -1
    return 0


def _stat(node: Node | int) -> os.stat_result:
    assert not isinstance(node, int)
    size = len(node.data) if isinstance(node, File) else 0
    mode = node.mode if stat.S_IFMT(node.mode) else node.mode | stat.S_IFDIR
    seconds = _MTIME_NS // 1_000_000_000
    return os.stat_result(
        (mode, node.number, 0, 1, 0, 0, size, seconds, seconds, seconds),
        {"st_mtime_ns": _MTIME_NS, "st_blocks": -(-size // 512)},
    )
