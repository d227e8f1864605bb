"""Encoding of the sessions at the head of a segment: plain, or packed where there are many runs. No I/O.

Every version reads the plain form. The packed form serves sessions with many runs: 3 to 5 bytes a run, not
20. It begins with a session of zeros, which no client may have, and its entry has a type of its own, so that
an older version refuses it by name. proto/journal.md draws both.
"""

import struct
from collections.abc import Iterable, Iterator

from .entry_format import NO_SESSION, EntryType
from .position_runs import PositionRun, PositionRuns

_SESSION = struct.Struct("<16sQQH")
_RUN = struct.Struct("<QQI")
_WITH_ONE_RUN = struct.Struct("<16sQQHQQI")  # as most are
_PLAIN_RUNS_MAX = 0xFFFF  # their number has 16 bits
_PLAIN_RUNS = 4  # average per session up to which the plain form is used


# A session as it is kept: name, last number in the journal, time of that number, and runs.
Kept = tuple[bytes, int, int, PositionRuns]


def entry_type(snapshot: bytes) -> EntryType:
    """Type of the entry that holds a snapshot."""
    return EntryType.PACKED_SESSIONS if snapshot.startswith(NO_SESSION) else EntryType.SESSIONS


def encode(sessions: list[Kept]) -> bytes:
    """Encode sessions in their order."""
    if sum([len(runs) for _, _, _, runs in sessions]) > _PLAIN_RUNS * (len(sessions) + 1):
        return _encode_packed(sessions)
    pieces = []
    for key, written, used_ms, runs in sessions:
        count = len(runs)
        if count == 1:
            pieces.append(_WITH_ONE_RUN.pack(key, written, used_ms, 1, *runs.last()))
            continue
        pieces.append(_SESSION.pack(key, written, used_ms, min(count, _PLAIN_RUNS_MAX)))
        if count:
            pieces.extend([_RUN.pack(*run) for run in list(runs)[-_PLAIN_RUNS_MAX:]])
    return b"".join(pieces)


def _encode_packed(sessions: list[Kept]) -> bytes:
    out = bytearray(NO_SESSION)
    for key, written, used_ms, runs in sessions:
        out += key
        numbers = [written, used_ms, len(runs)]
        seq = position = 0
        for first, place, count in runs.tuples():
            numbers += (first - seq, place - position, count)
            seq, position = first + count, place + count
        for number in numbers:
            while number > 0x7F:  # noqa: PLR2004 - seven bits a byte, the lowest first
                out.append(number & 0x7F | 0x80)
                number >>= 7  # noqa: PLW2901
            out.append(number)
    return bytes(out)


def decode(data: bytes | memoryview) -> Iterator[tuple[bytes, int, int, list[PositionRun]]]:
    """Decode the sessions of a snapshot whose checksum was tested."""
    data = bytes(data)
    return _decode_packed(data) if data.startswith(NO_SESSION) else _decode_plain(data)


def _decode_plain(data: bytes) -> Iterator[tuple[bytes, int, int, list[PositionRun]]]:
    offset = 0
    while offset < len(data):
        key, written, used_ms, count = _SESSION.unpack_from(data, offset)
        offset += _SESSION.size
        end = offset + count * _RUN.size
        yield key, written, used_ms, [PositionRun(*run) for run in _RUN.iter_unpack(data[offset:end])]
        offset = end


def _decode_packed(data: bytes) -> Iterator[tuple[bytes, int, int, list[PositionRun]]]:
    offset = len(NO_SESSION)

    def numbers() -> Iterable[int]:
        nonlocal offset
        while True:
            number = shift = 0
            while data[offset] > 0x7F:  # noqa: PLR2004
                number |= (data[offset] & 0x7F) << shift
                shift, offset = shift + 7, offset + 1
            number |= data[offset] << shift
            offset += 1
            yield number

    while offset < len(data):
        key = data[offset : offset + len(NO_SESSION)]
        offset += len(NO_SESSION)
        following = iter(numbers())
        written, used_ms, count = next(following), next(following), next(following)
        runs, seq, position = [], 0, 0
        for _ in range(count):
            run = PositionRun(seq + next(following), position + next(following), next(following))
            runs.append(run)
            seq, position = run.seq + run.count, run.position + run.count
        yield key, written, used_ms, runs
