"""Bases on file systems of other kinds, and with mounts in them: served right, or refused with a sentence."""

import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.tree.cursor import CURSOR_NAME
from tests.helpers.daemon import RunningDaemon, eventually, files_of
from tests.helpers.image import enter_namespace, image, needs_images, run
from tests.helpers.raw_client import Raw, event, job

MIB = 1 << 20
# Stands in for a file system without O_TMPFILE and RENAME_EXCHANGE: NFS, FUSE, eCryptfs, older overlayfs.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#define OPEN(name) int name(int dir, const char *path, int flags, ...) { \
    static int (*real)(int, const char *, int, ...); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if ((flags & O_TMPFILE) == O_TMPFILE) { errno = EOPNOTSUPP; return -1; } \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    return real(dir, path, flags, mode); }
OPEN(openat) OPEN(openat64)
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    static int (*real)(int, const char *, int, const char *, unsigned);
    if (flags) { errno = EINVAL; return -1; }
    if (!real) real = dlsym(RTLD_NEXT, "renameat2");
    return real(from, old, to, new, flags); }
"""


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    """Something mounted at a folder, in our own namespace, and surely unmounted."""
    needs_images()
    enter_namespace()
    path.mkdir(parents=True, exist_ok=True)
    run("mount", *arguments, str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


@contextmanager
def served(base: Path, log: Path, environment: dict[str, str] | None = None) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(base, log=log, environment=environment)
    try:
        yield daemon.start()
    finally:
        daemon.make_sure_it_ended()


def store(daemon: RunningDaemon, status: str, *, at: int = 0) -> None:
    """A job and twenty events; afterwards the tree is as far."""
    with Raw(daemon.endpoint) as raw:
        for name in ("j", "k"):
            raw.store("storeJob", job(name, status=status))
        for n in range(at, at + 20):
            raw.store("storeEvent", event(f"e{n}", jobId="j", timestamp=n))
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is whole")


def assert_served(daemon: RunningDaemon) -> None:
    """Files are made and replaced, a restart compares them, and the check finds nothing."""
    store(daemon, "running")
    store(daemon, "done", at=20)
    files = files_of(daemon.base)
    assert len(files) == 42
    assert json.loads(files["jobs/j/job.json"])["status"] == "done"
    daemon.kill()
    daemon.start()
    store(daemon, "again", at=40)
    assert json.loads(files_of(daemon.base)["jobs/j/job.json"])["status"] == "again"
    with Raw(daemon.endpoint) as raw:
        assert raw.ask("stats").value["tree"]["blocked"] == 0
    assert daemon.stop() == 0
    assert [path for path in (daemon.base / "jobs").iterdir() if path.name not in {"j", "k"}] == []


def refusal(base: Path, log: Path) -> str:
    """Why a daemon does not start there."""
    daemon = RunningDaemon(base, log=log).start(wait=False)
    assert daemon.process is not None
    try:
        assert daemon.process.wait(timeout=120) == 78, daemon.log.read_text()
    finally:
        daemon.make_sure_it_ended()
    assert b"Traceback" not in log.read_bytes()
    return str(daemon.events("failed")[-1]["reason"])


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "xfs"])
def test_a_base_on_other_file_systems_is_served(tmp_path: Path, kind: str) -> None:
    """All have what the tree needs; nothing falls back."""
    with contextlib.ExitStack() as stack:
        if kind == "tmpfs":
            options = ["-t", "tmpfs", "none"]
        elif kind == "overlay":
            layers = stack.enter_context(mounted(tmp_path / "layers", "-t", "tmpfs", "none"))
            for name in ("lower", "upper", "work"):
                (layers / name).mkdir()
            stacked = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
            options = ["-t", "overlay", "-o", stacked, "none"]
        else:
            if shutil.which(f"mkfs.{kind}") is None:
                pytest.skip(f"needs mkfs.{kind}")
            disk = tmp_path / "disk"
            with disk.open("wb") as file:
                file.truncate(512 * MIB)
            run(f"mkfs.{kind}", "-q", str(disk))
            options = ["-o", "loop", str(disk)]
        where = stack.enter_context(mounted(tmp_path / "mount", *options))
        with served(where / "base", tmp_path / "log") as daemon:
            assert_served(daemon)
            assert daemon.events("place_lacks") == []


def test_without_unnamed_files_and_exchange_the_tree_is_written_all_the_same(tmp_path: Path) -> None:
    """In all of the daemon's processes; it says once at the start what is missing."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    shim = tmp_path / "shim.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(shim), "-ldl"], input=SHIM, text=True, check=True
    )
    with served(tmp_path / "base", tmp_path / "log", environment={"LD_PRELOAD": str(shim)}) as daemon:
        assert_served(daemon)
        said = daemon.events("place_lacks")
        assert len(said) == 2  # once for each start
        assert set(said[0]["lacks"]) == {"files without a name", "exchange of names"}
    assert not list((tmp_path / "base/.stored/staging").iterdir())


def test_files_of_a_tree_on_its_own_disk_outlive_a_power_cut(tmp_path: Path) -> None:
    """What the durable cursor says is synced is on the disk of jobs/, which is not that of the base."""
    needs_images()
    base = tmp_path / "base"
    base.mkdir()
    with image(base, 64 * MIB, name="jobs") as disk:
        shutil.rmtree(disk.path / "lost+found")
        with served(base, tmp_path / "log") as daemon:
            store(daemon, "running")
            store(daemon, "done", at=20)

            def synced() -> tuple[int, int]:
                data = (base / ".stored" / CURSOR_NAME).read_bytes()
                position, clean = struct.unpack_from("<QB", data, 24)
                return position, clean

            eventually(lambda: synced() == (44, 1), "all is synced")
            disk.cut_power()
            daemon.kill()
        disk.unmount()
        disk.check()
        disk.mount()
        shutil.rmtree(disk.path / "lost+found")
        files = files_of(base)
        assert len(files) == 42
        assert all(json.loads(content) for content in files.values())
        assert json.loads(files["jobs/j/job.json"])["status"] == "done"
        with served(base, tmp_path / "log") as daemon:
            assert_served(daemon)
            assert daemon.events("jobs_apart")


def test_a_folder_bound_to_jobs_is_served(tmp_path: Path) -> None:
    """On the same file system, and yet no name can be moved there from elsewhere."""
    (tmp_path / "bulky").mkdir()
    with (
        mounted(tmp_path / "base/jobs", "--bind", str(tmp_path / "bulky")),
        served(tmp_path / "base", tmp_path / "log") as daemon,
    ):
        assert_served(daemon)


@pytest.mark.parametrize("name", [".stored", ".stored/journal", ".stored/staging"])
@pytest.mark.parametrize("how", ["disk", "bound"])
def test_a_part_of_stored_on_a_mount_of_its_own_is_refused(tmp_path: Path, name: str, how: str) -> None:
    """By its name, before anything is written there."""
    (tmp_path / "other").mkdir()
    options = ("-t", "tmpfs", "none") if how == "disk" else ("--bind", str(tmp_path / "other"))
    base = tmp_path / "base"
    with mounted(base / name, *options):
        assert f"{base}/{name} is a file system or a mount of its own" in refusal(base, tmp_path / "log")
        assert not list(base.rglob("*.segment"))


@pytest.mark.parametrize("how", ["disk", "bound"])
def test_a_mount_below_jobs_blocks_its_files_only(tmp_path: Path, how: str) -> None:
    """They are named with the reason and counted; all others are written."""
    (tmp_path / "other").mkdir()
    options = ("-t", "tmpfs", "none") if how == "disk" else ("--bind", str(tmp_path / "other"))
    with (
        mounted(tmp_path / "base/jobs/k", *options),
        served(tmp_path / "base", tmp_path / "log") as daemon,
    ):
        store(daemon, "running")
        store(daemon, "done", at=20)
        assert json.loads((daemon.base / "jobs/j/job.json").read_bytes())["status"] == "done"
        assert len(list(daemon.base.glob("jobs/j/runs/r1/*"))) == 40
        said = daemon.events("tree_file_blocked")
        assert {line["file"] for line in said} == {"jobs/k/job.json"}
        assert "another file system" in said[0]["reason"] or "cross-device" in said[0]["reason"]
        with Raw(daemon.endpoint) as raw:
            assert raw.ask("stats").value["tree"]["blocked"] == len(said) > 0


def test_a_mount_that_comes_while_it_runs_is_taken_up(tmp_path: Path) -> None:
    """What is stored from then on is written, replaced and synced there."""
    needs_images()
    enter_namespace()  # before the daemon is started: it must see the mount
    with served(tmp_path / "base", tmp_path / "log") as daemon:
        store(daemon, "running")
        with mounted(tmp_path / "base/jobs", "-t", "tmpfs", "none"):
            store(daemon, "later", at=20)
            store(daemon, "done", at=40)
            assert len(files_of(daemon.base)) == 42
            assert json.loads(files_of(daemon.base)["jobs/j/job.json"])["status"] == "done"
            with Raw(daemon.endpoint) as raw:
                assert raw.ask("stats").value["tree"]["fault"] == ""
            assert daemon.stop() == 0


def test_without_proc_it_says_so(tmp_path: Path) -> None:
    """And does not blame the socket."""
    needs_images()
    command = 'mount -t tmpfs none /proc && exec "$@"'
    daemon = RunningDaemon(tmp_path / "base", prefix=("unshare", "-m", "sh", "-c", command, "sh"))
    try:
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(120) == 78
        assert "/proc" in str(daemon.events("failed")[-1]["reason"])
    finally:
        daemon.make_sure_it_ended()


def test_a_socket_s_folder_without_an_inode_left_is_tried_again(tmp_path: Path) -> None:
    """Status 1, as for every fault that may pass: the service manager starts it again."""
    needs_images()
    with image(tmp_path, 16 * MIB, inodes=32) as disk:
        with contextlib.suppress(OSError):
            for n in range(1000):
                (disk.path / str(n)).touch()
        daemon = RunningDaemon(tmp_path / "base", "--bind", f"ipc://{disk.path}/x.sock").start(wait=False)
        assert daemon.process is not None
        try:
            assert daemon.process.wait(timeout=120) == 1
        finally:
            daemon.make_sure_it_ended()
        assert "No space left" in str(daemon.events("failed")[-1]["reason"])


def test_mounts_are_distinguished_without_moving_a_name(tmp_path: Path) -> None:
    """What the checks of mounts are built on."""
    (tmp_path / "one").mkdir()
    files = FileSystem()
    with mounted(tmp_path / "bound", "--bind", str(tmp_path / "one")) as bound:
        folders = [files.open_dir(str(path)) for path in (tmp_path, tmp_path / "one", bound)]
        assert not files.are_apart(folders[0], folders[1])
        assert files.are_apart(folders[1], folders[2])
        assert files.are_apart(folders[2], folders[0])
        for fd in folders:
            files.close(fd)
