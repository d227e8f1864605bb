"""A disk that has nothing left in the middle of a load: stores are refused for a while, that is all."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.crash.judge import judge
from tests.crash.load import load
from tests.crash.observed import Observer
from tests.crash.rounds import SETTINGS
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.datadir import event
from tests.helpers.image import Image, image, needs_images

MIB = 1 << 20


@contextmanager
def served(
    folder: Path, disk: Image, kinds: tuple[str, ...] = ("awaiting", "batching")
) -> Iterator[RunningDaemon]:
    """A daemon on the image, and clients that store; afterwards the judge says that all is well."""
    daemon = RunningDaemon(disk.path / "base", *SETTINGS, log=folder / "daemon.log").start()
    try:
        with load(daemon.endpoint, folder / "history", 7, kinds) as clients:
            eventually(lambda: clients.recorded() > 100_000, "the load goes on")
            with Observer(daemon.endpoint) as observer:
                eventually(lambda: len(observer.read_all()) > 20, "and is indexed")
            yield daemon
            clients.join()
        verdict = judge(clients.histories, daemon.endpoint, daemon.base)
        assert not verdict.kinds, str(verdict)
        assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()


def fill(path: Path) -> None:
    """Write until there is no block left."""
    with path.open("ab", buffering=0) as file:
        for size in (MIB, 4096):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
            os.fsync(file.fileno())


def use_up_inodes(folder: Path) -> None:
    """Make files until there is no inode left."""
    folder.mkdir()
    numbers = itertools.count()
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012 - as many as there are
        while True:
            (folder / str(next(numbers))).touch()


def full(daemon: RunningDaemon) -> int:
    """How many stores were refused since the disk is full."""
    with Observer(daemon.endpoint) as observer:
        return int(observer.stats()["refused"].get("STORAGE_FULL", 0))


@pytest.mark.timeout(200)
def test_a_disk_without_a_block_left_stops_stores_and_nothing_else(tmp_path: Path) -> None:
    """STORAGE_FULL, while every record can be read; with room again it all goes on by itself."""
    needs_images()
    # Room, and inodes, for a file for each of the records that are stored meanwhile.
    with image(tmp_path, 320 * MIB, inodes=90_000) as disk, served(tmp_path, disk) as daemon:
        fill(disk.path / "filler")
        eventually(lambda: full(daemon) > 0, "stores are refused")
        fill(disk.path / "filler")
        refused = full(daemon)
        eventually(lambda: full(daemon) > refused, "and refused again")
        with Observer(daemon.endpoint, answer_seconds=20) as observer:
            position = observer.position()
            assert observer.read_all()[-1].position >= position
            assert observer.value("getAllJobs")
        (disk.path / "filler").unlink()
        before = position
        with Observer(daemon.endpoint) as observer:
            eventually(lambda: observer.position() > before + 20, "stores go on")
        assert daemon.process is not None
        assert daemon.process.poll() is None


@pytest.mark.timeout(200)
def test_a_disk_without_an_inode_left_stops_the_tree_for_a_while(tmp_path: Path) -> None:
    """The fault is shown, reads go on; with inodes again every file is there."""
    needs_images()
    with image(tmp_path, 96 * MIB, inodes=8_000) as disk, served(tmp_path, disk, ("awaiting",)) as daemon:
        use_up_inodes(disk.path / "filler")
        with Observer(daemon.endpoint, answer_seconds=20) as observer:
            eventually(lambda: "No space left" in observer.stats()["tree"]["fault"], "the fault is shown")
            assert observer.read_all()
            for path in (disk.path / "filler").glob("*"):
                path.unlink()
            eventually(lambda: observer.stats()["tree"]["fault"] == "", "the tree goes on")


def test_a_log_that_can_not_be_written_ends_nothing(tmp_path: Path) -> None:
    """The daemon and its workers say nothing then, and go on; a stop is a clean one."""
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "perstack_stored", "serve", "--base-path", str(tmp_path / "base")],
            stdin=subprocess.DEVNULL, stderr=full,
        )  # fmt: skip
    try:
        with Client(f"ipc://{tmp_path}/base/.stored/stored.sock", timeout_s=60) as client:
            assert client.store_event(event()) == 1
            assert len(list(client.read_all())) == 1
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
