"""Three machines on one: network namespaces that a bridge joins, and that can be cut off. Needs root.

What is sent to or from a machine that is cut off vanishes, without an answer: its port is taken off the
bridge. Delays and losses by chance would need the kernel's netem, which not every kernel has.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator

from .cluster import Place

_NET = "10.77.91"


def is_possible() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and _run("netns", "add", "perstack-try") and _run("netns", "del", "perstack-try")


class Network:
    """Machines by number, each with a port on the bridge."""

    def __init__(self, count: int) -> None:
        self._bridge = f"pst{os.getpid()}"
        self._names = [f"pst{os.getpid()}n{i}" for i in range(count)]
        self.places = [
            Place(f"{_NET}.{i + 1}", ("ip", "netns", "exec", name)) for i, name in enumerate(self._names)
        ]

    def up(self) -> None:
        """Make it."""
        _do("link", "add", self._bridge, "type", "bridge")
        _do("addr", "add", f"{_NET}.254/24", "dev", self._bridge)
        _do("link", "set", self._bridge, "up")
        for name, place in zip(self._names, self.places, strict=True):
            _do("netns", "add", name)
            _do("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _do("link", "set", name, "master", self._bridge)
            _do("link", "set", name, "up")
            _do("-n", name, "addr", "add", f"{place.host}/24", "dev", "eth0")
            _do("-n", name, "link", "set", "eth0", "up")
            _do("-n", name, "link", "set", "lo", "up")

    def cut(self, number: int) -> None:
        """Cut a machine off."""
        _do("link", "set", self._names[number], "nomaster")

    def heal(self, number: int) -> None:
        """Join it again."""
        _do("link", "set", self._names[number], "master", self._bridge)

    def down(self) -> None:
        """Take all away; what runs in it has ended."""
        for name in self._names:
            _run("link", "del", name)
            _run("netns", "del", name)
        _run("link", "del", self._bridge)


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """A network for some time."""
    found = Network(count)
    try:
        found.up()
        yield found
    finally:
        found.down()


def _do(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _run(*arguments: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode == 0
    return False
