"""The place in a replicated log up to which a journal has applied it. No I/O.

The state is a function of the journal: an entry follows the records of each message of the log, in the same
write, and the head of each segment repeats the last one. It takes no position, so subscribers don't see it.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_HEAD = struct.Struct("<16sQQ16sQI")  # stream, sequence, position, digest, fenced, count of numbers
_NUMBERS = struct.Struct("<16sQ")  # session, and the number up to which its stores came
NO_STREAM = bytes(16)
DIGEST_BYTES = 16


class Numbers(NamedTuple):
    """A session whose stores up to a number came, the last of which were refused: they have no position."""

    session: bytes
    through: int


class LogPlace(NamedTuple):
    """What a journal has applied.

    Attributes:
        stream: id of the log, 16 bytes; `NO_STREAM` if there is none.
        sequence: of the last message applied; 0 before the first one.
        position: of the last record after it.
        digest: running digest over all messages and the positions after them, 16 bytes.
        fenced: the first position from which on the last writers are known; 0 if no store has asked for them.
    """

    stream: bytes = NO_STREAM
    sequence: int = 0
    position: int = 0
    digest: bytes = bytes(DIGEST_BYTES)
    fenced: int = 0


def encode(place: LogPlace, refused: Sequence[Numbers] = ()) -> bytes:
    """The payload of an entry."""
    return _HEAD.pack(*place, len(refused)) + b"".join([_NUMBERS.pack(*numbers) for numbers in refused])


def decode(data: bytes | memoryview) -> tuple[LogPlace, Iterator[Numbers]]:
    """What an entry says, whose checksum was tested."""
    *place, count = _HEAD.unpack_from(data)
    end = _HEAD.size + count * _NUMBERS.size
    found = _NUMBERS.iter_unpack(memoryview(data)[_HEAD.size : end])
    return LogPlace(*place), (Numbers(*numbers) for numbers in found)
