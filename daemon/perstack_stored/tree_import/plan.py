"""The plan of an import: the files of an existing tree in the order in which they are stored. No I/O.

A plan takes some 150 bytes a file, so that a million of them fit.
"""

import os
import re
import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from perstack_stored.model import values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.values import Value
from perstack_stored.tree.write import event_name

DIGEST_BYTES = 16
_DUPLICATE = re.compile(r"(event-.*)\.n(\d{4,9})\.json", re.DOTALL)

# An item, as bytes that sort in the order of the import:
#
#     +---------+-----------+--------------+------------+---+--------+---------------------+----------+
#     | time u64| folder u32| misnamed u8  | plain name | 0 | n u32  | digest (16 bytes)   | own name |
#     +---------+-----------+--------------+------------+---+--------+---------------------+----------+
#
# Big-endian. The plain name lacks ".n0002"; the own name is there only if it differs from the plain one.
# The digest comes after all that distinguishes items, so it never decides.
_HEAD = struct.Struct(">QIB")
_NUMBER = struct.Struct(">I")

Path = tuple[str, ...]


class Order(NamedTuple):
    """Sort key of a file within its folder."""

    time_ms: int
    plain: str
    n: int
    misnamed: bool


class Planned(NamedTuple):
    """A planned file, and the digest of its content."""

    kind: Kind
    path: Path
    digest: bytes


class Plan:
    """The planned files in order of time and path. It is the same for the same tree."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._items: list[bytes] = []

    def __len__(self) -> int:
        return len(self._items)

    def folder(self, path: Path) -> int:
        """Number of a folder; folders must come in the order of their paths."""
        self._folders.append(path)
        return len(self._folders) - 1

    def add(self, folder: int, name: str, order: Order, digest: bytes) -> None:
        """Plan a file."""
        head = _HEAD.pack(order.time_ms, folder, order.misnamed)
        own = os.fsencode(name) if name != order.plain else b""
        self._items.append(head + os.fsencode(order.plain) + b"\0" + _NUMBER.pack(order.n) + digest + own)

    def sort(self) -> None:
        """Sort the files."""
        self._items.sort()

    def __iter__(self) -> Iterator[Planned]:
        for item in self._items:
            _, folder, _ = _HEAD.unpack_from(item)
            end = item.index(b"\0", _HEAD.size)
            digest_start = end + 1 + _NUMBER.size
            digest_end = digest_start + DIGEST_BYTES
            path = (*self._folders[folder], os.fsdecode(item[digest_end:] or item[_HEAD.size : end]))
            kind = kind_of(path)
            assert kind is not None, "only such files are planned"
            yield Planned(kind, path, item[digest_start:digest_end])


def kind_of(path: Path) -> Kind | None:
    """Kind of the value in a file with this path; None if the tree has no such file."""
    name = path[-1]
    match path[:-1]:
        case ("jobs", _) if name == "job.json":
            return Kind.JOB
        case ("jobs", _, "checkpoints") if name.endswith(".json"):
            return Kind.CHECKPOINT
        case ("jobs", _, "runs", _) if name == "run-setting.json":
            return Kind.RUN_SETTING
        case ("jobs", _, "runs", _) if name.startswith("event-") and name.endswith(".json"):
            return Kind.EVENT
    return None


def order_of(name: str, value: Value, written_ms: int) -> Order:
    """Sort key of a file from its content; a checkpoint has no time, so the file's time counts."""
    if isinstance(value, values.Checkpoint):
        return Order(max(0, written_ms), name, 1, misnamed=False)
    if not isinstance(value, values.Event):
        return Order(int(value.startedAt), name, 1, misnamed=False)
    duplicate = _DUPLICATE.fullmatch(name)
    plain, n = (name, 1) if duplicate is None else (f"{duplicate[1]}.json", int(duplicate[2]))
    # Whole ms, as in names: events that share one are numbered again in this order, and must keep their
    # files. Events with the name of another one come after those with their own.
    time_ms = int(value.timestamp)
    if name == event_name(value.timestamp, value.stepNumber, value.type, n):
        return Order(time_ms, plain, n, misnamed=False)
    return Order(time_ms, name, 1, misnamed=True)


def digest_of(kind: int, payload: bytes | memoryview) -> bytes:
    """Digest that distinguishes contents; among a million of them two checksums would be equal."""
    return blake2b(payload, digest_size=DIGEST_BYTES, person=bytes([kind])).digest()
