"""Ports of the loopback for servers that can't choose one themselves."""

import socket
from pathlib import Path
from random import SystemRandom

_FIRST, _LAST = 10_000, 60_000
_FEWEST = 1000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody uses, below those that the kernel gives to programs that ask for any.

    Until the test binds it, no other program gets it by chance, and no connection to it meets itself. The
    processes of a run share the seed of `random`: it can't be taken from there.
    """
    given_from = int(_RANGE.read_text().split()[0])
    last = given_from if given_from > _FIRST + _FEWEST else _LAST
    while True:
        port = SystemRandom().randrange(_FIRST, last)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> list[int]:
    """Different ports, as many as `count` says."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)
