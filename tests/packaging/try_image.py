"""The container image, run for real by runc: started, probed, stored to, killed, stopped.

`make test-release` runs it on the image in dist/. It needs root, skopeo, umoci and runc, and no Docker.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client, __version__
from tests.helpers.daemon import eventually
from tests.packaging.roots import figure
from tests.systemd.debian import ROOT, need

TOOLS = ("skopeo", "umoci", "runc")
USER = 10001
FIRST_EVENT = Path(__file__).with_name("first_event.py")
FIRST_EVENT_SECONDS = 90.0
STOP_SECONDS = 20.0
# As in deploy/README.md.
PROBE = ("/usr/local/bin/perstack-storectl", "--timeout", "3", "ping")


def call(*words: str | Path, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], input=given, capture_output=True, text=True, timeout=120, check=check
    )


class Bundle:
    """The image, unpacked, with a volume and a folder for the socket that other containers would share."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._folder = folder
        self._runc = ("runc", "--root", folder / "runc")
        call("skopeo", "copy", "--quiet", f"oci-archive:{archive}", f"oci:{folder}/oci:image")
        self.config = json.loads(call("skopeo", "inspect", "--config", f"oci:{folder}/oci:image").stdout)
        call("umoci", "unpack", "--image", f"{folder}/oci:image", folder / "bundle")
        self.rootfs = folder / "bundle/rootfs"
        spec = json.loads((folder / "bundle/config.json").read_text())
        spec["process"]["terminal"] = False
        spec["root"]["readonly"] = True
        mounts = {mount["destination"]: mount for mount in spec["mounts"]}
        for name, place in (("volume", "/var/lib/perstack-stored"), ("socket", "/run/perstack-stored")):
            (folder / name).mkdir(mode=0o750)
            os.chown(folder / name, USER, USER)
            mount = {"destination": place, "type": "bind", "source": str(folder / name)}
            mounts[place] = {**mount, "options": ["rbind", "rw"]}
        spec["mounts"] = list(mounts.values())
        (folder / "bundle/config.json").write_text(json.dumps(spec))
        self.endpoint = f"ipc://{folder}/socket/stored.sock"

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self._runc, "run", "--bundle", self._folder / "bundle", "it"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield process
        finally:
            call(*self._runc, "delete", "--force", "it", check=False)
            process.wait(STOP_SECONDS)

    def run(self, *words: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        return call(*self._runc, "exec", "it", *words, given=given, check=check)

    def is_well(self) -> bool:
        return self.run(*PROBE, check=False).returncode == 0

    def kill(self, number: int) -> None:
        call(*self._runc, "kill", "it", str(number))


@pytest.fixture
def archive() -> Path:
    need(os.geteuid() == 0, "runc needs root here")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    need(not missing, f"install {' '.join(missing)}")
    found = list((ROOT / "dist").glob(f"perstack-stored-{__version__}-*.oci.tar"))
    need(len(found) == 1, "make image must have made one image")
    return found[0]


@pytest.mark.timeout(300)
def test_the_image_runs(archive: Path, tmp_path: Path) -> None:
    """As a user without rights, on a read-only root; from the archive to the first event within 90 s."""
    began = time.monotonic()
    bundle = Bundle(archive, tmp_path)
    with bundle.running():
        eventually(bundle.is_well, "the probe is content", 30)
        stored = bundle.run("/usr/bin/python3", "-", given=FIRST_EVENT.read_text())
        seconds = time.monotonic() - began
        assert stored.stdout.strip() == "1"
        figure(f"{archive.name}: {archive.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s to the first event")
        assert seconds <= FIRST_EVENT_SECONDS
        with Client(bundle.endpoint) as client:  # as from another container
            assert [event["id"] for event in client.get_event_contents("job-1", "run-1")] == ["e1"]
        assert bundle.run("/usr/bin/python3", "-c", "import os; print(os.getuid(), os.getgid())").stdout == (
            f"{USER} {USER}\n"
        )
        bundle.kill(signal.SIGKILL)
    with bundle.running() as again:
        eventually(bundle.is_well, "it goes on after a kill", 30)
        with Client(bundle.endpoint) as client:
            assert [event["id"] for event in client.get_event_contents("job-1", "run-1")] == ["e1"]
        bundle.kill(signal.SIGTERM)
        assert again.wait(STOP_SECONDS) == 0
    assert '"event": "stopped"' in (tmp_path / "log").read_text().splitlines()[-1]
    check = (ROOT / ".venv/bin/perstack-stored", "check", "--base-path", tmp_path / "volume/perstack")
    assert "clean" in call(*check).stdout


def test_the_image_says_how_it_is_run(archive: Path, tmp_path: Path) -> None:
    """User, volume, signal; no shell, nothing with rights of another user, licences of what is in it."""
    bundle = Bundle(archive, tmp_path)
    config = bundle.config["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/var/lib/perstack-stored"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/usr/local/bin/perstack-stored"], ["serve"])
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    files = [path for path in bundle.rootfs.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if path.stat().st_mode & 0o6000]
    assert {path.name for path in (bundle.rootfs / "usr/bin").iterdir()} == {"python3", "python3.13"}
    assert (bundle.rootfs / "usr/share/doc/libc6/copyright").exists()
