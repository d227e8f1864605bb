"""File systems of their own in image files: they can be cut from power, filled up, or given nothing.

Needs root and loop devices. The mounts lie in a mount namespace of this process, and the loop devices detach
themselves: whatever happens to the process, the kernel cleans up after it.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
# ioctl of ext4 and xfs, the one behind `xfs_io -x -c shutdown`; the flag says not to flush the log first.
_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_BUSY_SECONDS = 20.0


class _Namespace:
    private = False


def needs_images() -> None:
    """Skip a test where no image can be mounted; for root in CI, that is a failure."""
    if os.geteuid() != 0:
        pytest.skip("mounting an image needs root")
    missing = [name for name in ("mkfs.ext4", "e2fsck", "mount") if shutil.which(name) is None]
    why = ""
    if missing:
        why = f"install e2fsprogs and mount, {', '.join(missing)} not found"
    elif not os.path.exists("/dev/loop-control"):
        why = "no loop devices here: modprobe loop"
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


def enter_namespace() -> None:
    """Once a process: what is mounted from now on is seen by it and its children only, and goes with them."""
    if _Namespace.private:
        return
    if _libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "making mounts private")
    _Namespace.private = True


class Image:
    """An ext4 file system in a file, mounted at `path`."""

    def __init__(
        self, folder: Path, size_bytes: int, *, inodes: int | None = None, name: str = "image"
    ) -> None:
        self._file = folder / f"{name}.img"
        self.path = folder / name
        self._mounted = False
        self.is_evidence = False  # then the file stays, to be looked at
        with self._file.open("wb") as file:
            file.truncate(size_bytes)
        options = ["-N", str(inodes)] if inodes else []
        run("mkfs.ext4", "-q", "-F", "-m", "0", *options, str(self._file))
        self.path.mkdir()
        self.mount()

    def mount(self) -> None:
        """Mount it; a journal that a power cut left is played back."""
        enter_namespace()
        run("mount", "-t", "ext4", "-o", "loop", str(self._file), str(self.path))
        self._mounted = True

    def cut_power(self) -> None:
        """From now on nothing reaches the disk; what was not synced is gone after the next mount."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Unmount it; every process that used it must have ended."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while self._mounted:
            if _libc.umount2(os.fsencode(self.path), 0) == 0:
                self._mounted = False
            elif ctypes.get_errno() != errno.EBUSY or time.monotonic() > deadline:
                raise OSError(ctypes.get_errno(), f"unmounting {self.path}")
            else:
                time.sleep(0.01)

    def check(self) -> None:
        """Play back the journal of the file system, and see that it is one; free counts may be put right."""
        checked = subprocess.run(
            ["e2fsck", "-fy", str(self._file)], capture_output=True, text=True, check=False
        )
        assert checked.returncode in {0, 1}, checked.stdout + checked.stderr

    def remove(self) -> None:
        """Unmount it by all means, and delete it, unless it shows what went wrong."""
        if self._mounted:
            _libc.umount2(os.fsencode(self.path), 2)  # detached: busy or not
            self._mounted = False
        if not self.is_evidence:
            self._file.unlink(missing_ok=True)


@contextmanager
def image(
    folder: Path, size_bytes: int, *, inodes: int | None = None, name: str = "image"
) -> Iterator[Image]:
    """An image that is surely unmounted in the end; its file is gone too, unless an error ended it."""
    made = Image(folder, size_bytes, inodes=inodes, name=name)
    try:
        yield made
    except Exception:
        made.is_evidence = True
        raise
    finally:
        made.remove()


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
