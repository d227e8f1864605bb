"""A cluster of real NATS servers on loopback, in processes of this test."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.ports import free_ports

READY_SECONDS = 60.0


class Place(NamedTuple):
    """Where a server runs: its address, and a command that runs a program there."""

    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


_HERE = Place()


class Node:
    """One server. It keeps its folder and ports over restarts."""

    def __init__(
        self, folder: Path, name: str, ports: tuple[int, int, int], routes: list[str], place: Place, more: str
    ) -> None:
        self.name = name
        self.place = place
        self.folder = folder / name
        self.port, self.route_port, self.http_port = ports
        self.folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        others = ", ".join(f"nats-route://{route}" for route in routes)
        cluster = f"cluster {{ name: tests, listen: {place.host}:{self.route_port}, routes: [{others}] }}"
        self.config = folder / f"{name}.conf"
        self.config.write_text(
            f"""
            server_name: {name}
            listen: {place.host}:{self.port}
            http: {place.host}:{self.http_port}
            max_payload: 8388608
            jetstream {{ store_dir: "{self.folder}", sync_interval: always, max_file_store: 20GB }}
            {cluster if len(routes) > 1 else ""}
            {more}
            """
        )

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        program = Path(sys.executable).parent / "nats-server"
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.place.prefix, program, "-c", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """Stop it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str) -> dict[str, object]:
        """Ask its monitoring."""
        with urllib.request.urlopen(f"http://{self.place.host}:{self.http_port}{path}", timeout=5) as answer:
            found: dict[str, object] = json.load(answer)
        return found

    def streams(self) -> dict[str, dict[str, Any]]:
        """What it says of each stream, by name; nothing while it can't be asked."""
        try:
            found: dict[str, Any] = self.get("/jsz?streams=true&config=false")
        except (OSError, ValueError):
            return {}
        return {
            detail["name"]: detail
            for account in found.get("account_details") or []
            for detail in account.get("stream_detail") or []
        }

    def is_healthy(self) -> bool:
        """Whether it is ready, with JetStream."""
        try:
            return self.get("/healthz").get("status") == "ok"
        except (OSError, ValueError, urllib.error.URLError):
            return False


class Cluster:
    """Servers that keep one stream; `more` is text for their configuration."""

    def __init__(
        self, folder: Path, count: int = 3, more: str = "", places: Sequence[Place] | None = None
    ) -> None:
        places = places or [_HERE] * count
        ports = free_ports(3 * count)
        routes = [f"{places[i].host}:{ports[count + i]}" for i in range(count)]
        self.nodes = [
            Node(folder, f"n{i}", (ports[i], ports[count + i], ports[2 * count + i]), routes, places[i], more)
            for i in range(count)
        ]

    def start(self) -> None:
        """Start all, and wait until they are ready."""
        for node in self.nodes:
            node.start()
        self.await_healthy()

    def await_healthy(self, seconds: float = READY_SECONDS) -> None:
        """Wait until all servers are ready."""
        until = time.monotonic() + seconds
        while not all(node.is_healthy() for node in self.nodes):
            assert time.monotonic() < until, "the servers did not become ready"
            time.sleep(0.1)

    def stop(self) -> None:
        """End all."""
        for node in self.nodes:
            if node._process is not None:
                node.signal(signal.SIGCONT)
                node.kill()

    def url(self, stream: str, first: int = 0) -> str:
        """Address of a stream; the servers from `first` on come first."""
        hosts = [f"{node.place.host}:{node.port}" for node in self.nodes]
        return f"nats://{','.join(hosts[first:] + hosts[:first])}/{stream}"

    def leader(self, stream: str) -> Node:
        """The node that leads the stream."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            for node in self.nodes:
                leader = (node.streams().get(stream, {}).get("cluster") or {}).get("leader")
                if leader:
                    return next(one for one in self.nodes if one.name == leader)
            time.sleep(0.1)
        raise AssertionError("the stream has no leader")

    def has_all(self, node: Node) -> bool:
        """Whether a server holds all messages of all streams that another one holds."""
        own = node.streams()
        others = [one.streams() for one in self.nodes if one is not node]
        return bool(own) and all(
            name in own
            and own[name]["state"]["last_seq"] >= other["state"]["last_seq"]
            and own[name]["state"]["messages"] == _length(own[name]["state"])
            for one in others
            for name, other in one.items()
        )


def _length(state: dict[str, int]) -> int:
    return state["last_seq"] - state["first_seq"] + 1
