"""Named cursors: up to which position each named subscriber is done. No I/O.

The state is a function of the journal: an entry holds what changes, and the head of each segment all cursors.
A cursor takes no position of its own, so subscribers don't see it.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

CURSORS_MAX = 1000
"""More names are refused: some 220 KB at the head of each segment."""

_HEAD = struct.Struct("<QQH")  # position, time in ms, bytes of the name
_REMOVED = 2**64 - 1


class Cursor(NamedTuple):
    """The position up to which a subscriber is done, and the daemon's time at which it said so, in ms."""

    position: int
    time_ms: int


Changes = Mapping[str, Cursor | None]
"""Cursors by name; None for one that is removed."""


def encode(changes: Changes) -> bytes:
    """The payload of an entry."""
    pieces = []
    for name, cursor in changes.items():
        text = name.encode()
        pieces += [_HEAD.pack(*(cursor or (_REMOVED, 0)), len(text)), text]
    return b"".join(pieces)


def decode(data: bytes | memoryview) -> Iterator[tuple[str, Cursor | None]]:
    """What an entry changes, whose checksum was tested."""
    data, offset = bytes(data), 0
    while offset < len(data):
        position, time_ms, size = _HEAD.unpack_from(data, offset)
        offset += _HEAD.size
        name = data[offset : offset + size].decode()
        yield name, None if position == _REMOVED else Cursor(position, time_ms)
        offset += size


class Cursors:
    """All cursors."""

    def __init__(self) -> None:
        self._cursors: dict[str, Cursor] = {}

    def __len__(self) -> int:
        return len(self._cursors)

    def get(self, name: str) -> Cursor | None:
        """A cursor by its name."""
        return self._cursors.get(name)

    def all(self) -> list[tuple[str, Cursor]]:
        """All cursors by name. May be called from another thread."""
        return sorted(self._cursors.copy().items())

    def apply(self, changes: Changes) -> None:
        """Change some cursors."""
        for name, cursor in changes.items():
            if cursor is None:
                self._cursors.pop(name, None)
            else:
                self._cursors[name] = cursor

    def replay(self, data: bytes | memoryview) -> None:
        """Apply an entry of the journal."""
        self.apply(dict(decode(data)))

    def snapshot(self) -> bytes:
        """All cursors as the payload of an entry; nothing if there are none."""
        return encode(self._cursors)

    def clear(self) -> None:
        """Forget all."""
        self._cursors.clear()

    def bound(self, position: int) -> None:
        """Put cursors back to the last position of the journal that lie after it: its end was lost."""
        for name, cursor in self._cursors.items():
            if cursor.position > position:
                self._cursors[name] = cursor._replace(position=position)
