"""Digests that distinguish events with the same name, length and checksum. No I/O.

A checksum is no secret: a client can make thousands of different events that share it. Comparing each new
one with all earlier ones costs their square: 2,500 of them kept the index busy for 40 s.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from hashlib import blake2b

GROUP_MIN = 8
"""Up to this count events are compared by their bytes."""
_DIGEST_BYTES = 16
_DIGESTS_MAX = 65_536  # of all groups together: some 8 MiB

Bytes = bytes | bytearray | memoryview


class Lookalikes:
    """Digests of such events by group; the least recently used group is forgotten first."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, set[bytes]] = OrderedDict()
        self._count = 0

    def knows(self, group: Hashable) -> bool:
        """Whether all events of a group are known."""
        return group in self._groups

    def has(self, group: Hashable, event: Bytes) -> bool:
        """Whether a known group has this event. If not, it is added."""
        digests = self._groups[group]
        self._groups.move_to_end(group)
        digest = _digest(event)
        if digest in digests:
            return True
        digests.add(digest)
        self._count += 1
        self._make_room()
        return False

    def learn(self, group: Hashable, events: Iterable[Bytes]) -> None:
        """Learn all events of a group."""
        digests = self._groups[group] = {_digest(event) for event in events}
        self._count += len(digests)
        self._make_room()

    def clear(self) -> None:
        """Forget all."""
        self._groups.clear()
        self._count = 0

    def _make_room(self) -> None:
        while self._count > _DIGESTS_MAX and self._groups:
            _, digests = self._groups.popitem(last=False)
            self._count -= len(digests)


def _digest(event: Bytes) -> bytes:
    return blake2b(event, digest_size=_DIGEST_BYTES).digest()
