"""The folder of the rounds, and a description of the machine."""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.contenders.base import output


@contextmanager
def place(folder: str | None, image: str | None) -> Iterator[tuple[Path, str, Callable[[], None]]]:
    """A fresh folder, its description, and a call that makes it fresh again; emptied at the end.

    With an image, a file whose blocks were written beforehand, a new ext4 is made on it and mounted.
    Otherwise the folder lies in the one given, or beside this file, and the call does nothing: ext4 makes
    files ten times slower for minutes after many were deleted.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder or Path(__file__).parent) as made:
        root = Path(made)
        root.chmod(0o755)  # PostgreSQL's server is another user
        if image is None:
            yield root, f"{output('stat', '-f', '-c', '%T', made)}, a fresh folder", lambda: None
            return
        # Without direct I/O, a sync of one file writes out whatever the image's file has in the page cache.
        command = ["losetup", "--find", "--show", "--direct-io=on", image]
        device = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

        def make() -> None:
            subprocess.run(["mkfs.ext4", "-q", "-F", "-i", "4096", "-E", "nodiscard", device], check=True)
            subprocess.run(["mount", "-o", "noinit_itable", device, made], check=True)

        def make_again() -> None:
            subprocess.run(["umount", made], check=True)
            make()

        try:
            make()
            try:
                kind = "a fresh ext4 on a loop device with direct I/O, its blocks written beforehand"
                yield root, kind, make_again
            finally:
                subprocess.run(["umount", "--lazy", made], check=True)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)


def described(root: Path, kind: str) -> dict[str, str]:
    """The head of a report."""
    growing, zeros = sync_ms(root / "growing", zeros=False), sync_ms(root / "zeros", zeros=True)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "cores": str(os.cpu_count()),
        "processor": processor(),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "file system": kind,
        "fdatasync of 4 KiB": f"{growing:.2f} ms growing, {zeros:.2f} ms over written zeros (medians)",
        "commit": output("git", "rev-parse", "--short", "HEAD"),
    }


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def sync_ms(path: Path, *, zeros: bool) -> float:
    """Median time of an fdatasync of 4 KiB."""
    times = []
    with path.open("wb", buffering=0) as file:
        if zeros:
            file.write(bytes(4096 * 200))
            os.fsync(file.fileno())
            file.seek(0)
        for _ in range(200):
            file.write(os.urandom(4096))
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    return 1000 * statistics.median(times)
