"""The last writers of jobs and runs: the state of stores that expect something. No I/O.

For each job, and each run, three facts tell for every session where another one stored last: the session that
stored last, the position of its last record, and that of the last record by any other session.

Encoded they are, those that stored longest ago first:

     floor u64 | n x ( session (16 bytes) | position u64 | other u64 | size u16 | size u16 | job | run )
"""

import struct
from collections import OrderedDict
from typing import NamedTuple

from perstack_stored.model.owners import NO_RUN, Owner

from .entry_format import NO_SESSION

_FLOOR = struct.Struct("<Q")
_WRITER = struct.Struct("<16sQQHH")

KEYS_MAX = 65_536
"""Jobs and runs that are known at a time: some 20 MiB of memory."""


class Expectation(NamedTuple):
    """Nobody but the session that stores has stored for `owner` after `position`.

    `owner` without a run stands for everything of the job.
    """

    owner: Owner
    position: int


class _Writer:
    """The session that stored last, at `position`. `other` is where any other one did, or the floor."""

    __slots__ = ("other", "position", "session")

    def __init__(self, session: bytes, position: int, other: int) -> None:
        self.session = session
        self.position = position
        self.other = other


class LastWriters:
    """The last writers of jobs and runs, those that stored longest ago first.

    Attributes:
        floor: of a job that is not known, nobody has stored anything after this position.
    """

    def __init__(self, floor: int, keys_max: int = KEYS_MAX) -> None:
        self.floor = floor
        self._keys_max = keys_max
        self._writers: OrderedDict[Owner, _Writer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._writers)

    def note(self, owner: Owner, session: bytes, position: int) -> None:
        """Note a record; positions come in order."""
        job, run = owner
        self._note((job, NO_RUN), session, position)
        if run != NO_RUN:
            self._note(owner, session, position)

    def _note(self, key: Owner, session: bytes, position: int) -> None:
        writer = self._writers.get(key)
        if writer is None:
            if len(self._writers) >= self._keys_max:
                _, oldest = self._writers.popitem(last=False)
                self.floor = max(self.floor, oldest.position)
            self._writers[key] = _Writer(session, position, self.floor)
            return
        if writer.session != session:
            writer.other, writer.session = writer.position, session
        writer.position = position
        self._writers.move_to_end(key)

    def met(self, owner: Owner, session: bytes) -> int:
        """Position of the last record that another session stored; the floor, or more, if it is not known.

        Stores without a session are those of others, each.
        """
        writer = self._writers.get(owner)
        if writer is None:
            return self.floor
        if writer.session != session or session == NO_SESSION:
            return writer.position
        return writer.other

    def encode(self) -> bytes:
        """All that is known."""
        pieces = [_FLOOR.pack(self.floor)]
        for (job, run), one in self._writers.items():
            job_bytes, run_bytes = job.encode(), run.encode()
            sizes = len(job_bytes), len(run_bytes)
            pieces += [
                _WRITER.pack(one.session, one.position, one.other, *sizes),
                job_bytes,
                run_bytes,
            ]
        return b"".join(pieces)

    @classmethod
    def decode(cls, data: bytes | memoryview, keys_max: int = KEYS_MAX) -> "LastWriters":
        """What was encoded, whose checksum was tested."""
        data = bytes(data)
        (floor,) = _FLOOR.unpack_from(data)
        found = cls(floor, keys_max)
        offset = _FLOOR.size
        while offset < len(data):
            session, position, other, job_size, run_size = _WRITER.unpack_from(data, offset)
            offset += _WRITER.size
            job = data[offset : offset + job_size].decode()
            offset += job_size
            run = data[offset : offset + run_size].decode()
            offset += run_size
            found._writers[job, run] = _Writer(session, position, other)
        return found
