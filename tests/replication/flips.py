"""Flipped bits in what a server keeps on its disk: a daemon names each, and the server is mended.

The bit lies in a stream of a fixed size that a new daemon reads from its beginning on, and a second one
in the campaign's own. A server makes up for some by itself, from its log; such a flip is tried again.
"""

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from perstack_stored.replication.nats_admin import NewStream, create, parse_address
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, event

from .cluster import Cluster, Node

STREAM = "flips"
RECORDS = 110
_BYTES = 200_000  # of a record: two blocks of the server are full, and a third begins
_TRIES = 3  # flips, until a daemon names one
_READS = 8  # daemons that read after a flip: who answers them is chance
_PATIENCE_SECONDS = 90.0
_MEND_SECONDS = 300.0  # for a server to fetch all streams


class Flips:
    """Servers whose bits flip, one at a time."""

    def __init__(self, cluster: Cluster, folder: Path, own: str, seed: int) -> None:
        """Args: the servers; a new folder for daemons; the campaign's stream; a seed."""
        self._cluster = cluster
        self._folder = folder
        self._own = own
        self._random = random.Random(seed)
        self.flipped = 0
        folder.mkdir()

    def fill(self) -> None:
        """Make the stream."""
        url = self._cluster.url(STREAM)
        create(parse_address(url), NewStream(3, 604_800, 0, 20_000, 1024, 86_400))
        with self._daemon(0, "filler") as daemon, Raw(daemon.endpoint) as raw:
            for i in range(RECORDS):
                raw.store("storeEvent", event(f"flip-{i}", text="x" * _BYTES))

    def one(self) -> None:
        """Flip bits at a server that is stopped, until a daemon names one; then mend the server."""
        number = self._random.randrange(len(self._cluster.nodes))
        node = self._cluster.nodes[number]
        for _ in range(_TRIES):
            self.flipped += 1
            node.terminate()
            self._flip(node, STREAM)
            self._flip(node, self._own)
            node.start()
            self._cluster.await_healthy()
            is_named = self._is_named(number)
            self._mend(node)
            if is_named:
                return
        raise AssertionError(f"no daemon named a flipped bit of {node.name}")

    def _flip(self, node: Node, stream: str) -> None:
        """Flip a bit in a block that is complete, if there is one."""
        blocks = sorted(node.folder.rglob(f"{stream}/msgs/*.blk"), key=lambda path: int(path.stem))[:-1]
        if not blocks:
            return
        with self._random.choice(blocks).open("r+b") as file:
            size = file.seek(0, 2)
            place = self._random.randrange(size)
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << self._random.randrange(8)]))

    def _is_named(self, number: int) -> bool:
        """Whether one of some new daemons says that a message is not as it was; each comes to all records."""
        for read in range(_READS):
            with self._daemon(number, f"read{read}") as daemon:
                with Raw(daemon.endpoint) as raw:
                    eventually(_has_all(raw), "it has all records", _PATIENCE_SECONDS)
                    texts = [record["value"]["text"] for record in raw.read_all()]
                    assert texts == ["x" * _BYTES] * RECORDS, "a flipped bit came into a record"
                if daemon.events("stream_hole"):
                    return True
        return False

    @contextlib.contextmanager
    def _daemon(self, number: int, name: str) -> Iterator[RunningDaemon]:
        """A daemon with an empty base, which is removed afterwards."""
        base = self._folder / name
        node = self._cluster.nodes[number]
        url = f"nats://{node.place.host}:{node.port}/{STREAM}"  # which mostly answers itself
        flags = ("--journal", url, "--tree-leave-out", "startRun", "--no-pack")
        daemon = RunningDaemon(base, *flags, prefix=node.place.prefix)
        try:
            yield daemon.start()
        finally:
            daemon.make_sure_it_ended()
            shutil.rmtree(base)
            daemon.log.unlink()

    def _mend(self, node: Node) -> None:
        """As the page says it: stop the server, empty its folder, start it, and wait until it has all."""
        node.terminate()
        shutil.rmtree(node.folder)
        node.folder.mkdir()
        node.start()
        self._cluster.await_healthy(_MEND_SECONDS)
        until = time.monotonic() + _MEND_SECONDS
        while not self._cluster.has_all(node):
            assert time.monotonic() < until, f"{node.name} does not come to what the others have"
            time.sleep(0.2)


def _has_all(raw: Raw) -> Callable[[], bool]:
    return lambda: int(raw.ask("stats", {}).value["position"]) >= RECORDS
