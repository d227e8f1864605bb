"""Generations: segments that were erased in, shipped again whole, in a folder beside that of the pieces.

Objects are created, never replaced, as the pieces are. Of each generation an object says that it is whole,
and which salt the segment has; another one that what came before it was removed. Generation 0 are the pieces
of `pieces`. The newest whole generation of a segment counts.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from .listing import Names

FOLDER = ".stored/erased/"
NOTE = b"\n"
"""Content of the objects that only say something by their names."""
_NAME = re.compile(r"([0-9]{10})-([0-9]{6})-(?:([0-9]{12})|whole-([0-9a-f]{8})|(clean))")


def folder_of(prefix: str, store: bytes) -> str:
    """The keys of all generations of a history begin with this."""
    return f"{prefix}{FOLDER}{store.hex()}/"


def name_of(segment: int, generation: int, start: int) -> str:
    """The name of a piece."""
    return f"{segment:010d}-{generation:06d}-{start:012d}"


def whole_name(segment: int, generation: int, salt: int) -> str:
    """The name of the object that says that all pieces of a generation are there."""
    return f"{segment:010d}-{generation:06d}-whole-{salt:08x}"


def clean_name(segment: int, generation: int) -> str:
    """The name of the object that says that what came before a generation was removed."""
    return f"{segment:010d}-{generation:06d}-clean"


class Generation(NamedTuple):
    """What is there of a generation.

    Attributes:
        segment: the segment.
        number: from 1 on.
        starts: offsets of its pieces, in order.
        notes: names of its other objects.
        salt: of the segment; None while it is not whole.
        is_clean: what came before it was removed.
    """

    segment: int
    number: int
    starts: tuple[int, ...]
    notes: tuple[str, ...]
    salt: int | None
    is_clean: bool

    @property
    def names(self) -> list[str]:
        """Names of all its objects."""
        return [*(name_of(self.segment, self.number, start) for start in self.starts), *self.notes]


def parse(names: Iterable[str]) -> Iterator[Generation]:
    """The generations in some names, which are in order; other names are passed over."""
    found = (match for match in map(_NAME.fullmatch, names) if match is not None)
    for (segment, number), group in groupby(found, lambda match: (int(match[1]), int(match[2]))):
        starts: list[int] = []
        notes: list[str] = []
        salt, is_clean = None, False
        for match in group:
            if match[3]:
                starts.append(int(match[3]))
                continue
            notes.append(match[0])
            is_clean = is_clean or bool(match[5])
            salt = int(match[4], 16) if match[4] else salt
        yield Generation(segment, number, tuple(starts), tuple(notes), salt, is_clean)


def whole(found: Iterable[Generation]) -> Generation | None:
    """The newest whole generation of one segment."""
    return max((one for one in found if one.salt is not None), key=lambda one: one.number, default=None)


class Generations:
    """The generations of one history in a bucket."""

    def __init__(self, bucket: Names, prefix: str, store: bytes) -> None:
        self._bucket = bucket
        self.folder = folder_of(prefix, store)

    def all(self) -> Iterator[Generation]:
        """Those of all segments, in order."""
        yield from parse(self._bucket.names(self.folder))

    def of(self, segment: int) -> list[Generation]:
        """Those of a segment, the oldest first; one list request, mostly."""
        found = []
        for one in parse(self._bucket.names(self.folder, f"{segment:010d}-")):
            if one.segment != segment:
                break
            found.append(one)
        return found
