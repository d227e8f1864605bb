"""Bare connections, and what the daemon says of them."""

import socket
from typing import Any

from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw

PING = b'{"v":1,"op":"ping","id":7}'


def connections(daemon: RunningDaemon) -> dict[str, Any]:
    """What the daemon says of its connections, with that of the asker."""
    with Raw(daemon.endpoint) as raw:
        told: dict[str, Any] = raw.ask("stats").value["connections"]
        return told


def stranger(daemon: RunningDaemon, said: bytes = b"") -> socket.socket:
    """A bare connection."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(60)
    peer.connect(daemon.endpoint.removeprefix("ipc://"))
    if said:  # even nothing can't be sent to a peer that is gone
        peer.sendall(said)
    return peer


def stored_event(n: int) -> bytes:
    return (
        b'{"id":"e%d","expertKey":"me","jobId":"j1","runId":"r1","type":"startRun","timestamp":1,"stepNumber":0}'
        % n
    )
