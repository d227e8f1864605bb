"""Values in parts: assembled under one budget, in which only received bytes count. No I/O.

Announcing a size takes no room. When the room is used up, values give way in this order: those that come
too slowly, those of a client that sends several at once, the one that began last. So the value that
began first always completes, and a client that falls silent blocks no other.
"""

import time

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.shares import NOBODY, Client

from .frames import RequestHeader
from .messages import RoutingId

# Minimum speed of a value while others have no room for it: a pause at most this long, and otherwise at
# as fast as this. A network of 100 Mbit/s gives 12 MB/s.
GRACE_SECONDS = 2.0
BYTES_PER_SECOND = 4 << 20
VALUES_MAX = 256  # at a time; a scan of all of them stays cheap
_STEP_SECONDS = 1.0


class _Assembly:
    __slots__ = ("buffer", "client", "due", "heard", "key", "next_part", "size")

    def __init__(self, client: Client, key: tuple[object, ...], size: int, due: float) -> None:
        self.client = client
        self.key = key
        self.size = size
        self.buffer = bytearray()  # grows with received bytes
        self.next_part = 0
        self.heard = time.monotonic()
        self.due = due  # when it is late, by the clock of `MultipartAssembler`


class MultipartAssembler:
    """Assembles at most one value for each connection at a time.

    Attributes:
        bytes: received bytes of all values.
        gave_way: count of values that were dropped to make room.
    """

    def __init__(self, *, value_bytes_max: int, budget_bytes: int, silence_seconds: float) -> None:
        self._value_max = value_bytes_max
        self._budget = budget_bytes
        self._silence = silence_seconds
        self._assemblies: dict[RoutingId, _Assembly] = {}  # in the order in which they began
        # A clock that goes only while there is too little room, and no faster than this module is called:
        # parts that lie unread because the daemon is busy don't make their sender late.
        self._clock = 0.0
        self._ticked = 0.0
        self.bytes = 0
        self.gave_way = 0

    def take(
        self, peer: RoutingId, header: RequestHeader, body: bytes, client: Client = NOBODY
    ) -> bytearray | None:
        """Add a part; return the whole value after the last one.

        Raises:
            Refusal: BAD_REQUEST, TOO_LARGE or BUSY; the value is dropped.
        """
        try:
            assembly = self._assembly(peer, header, client)
            self._append(peer, assembly, header, body)
        except Refusal:
            self.forget(peer)
            raise
        if assembly.next_part < header.parts:
            return None
        self.forget(peer)
        if len(assembly.buffer) != assembly.size:
            raise Refusal(
                ErrorCode.BAD_REQUEST,
                f"the parts hold {len(assembly.buffer)} bytes, not {assembly.size}",
                "bytes",
            )
        return assembly.buffer

    def forget(self, peer: RoutingId) -> None:
        """Drop the value of a connection, if there is one."""
        assembly = self._assemblies.pop(peer, None)
        if assembly is not None:
            self.bytes -= len(assembly.buffer)

    def forget_silent(self) -> int:
        """Drop the values whose senders fell silent; return their count."""
        limit = time.monotonic() - self._silence
        silent = [peer for peer, assembly in self._assemblies.items() if assembly.heard < limit]
        for peer in silent:
            self.forget(peer)
        return len(silent)

    def _assembly(self, peer: RoutingId, header: RequestHeader, client: Client) -> _Assembly:
        key = (header.op, header.session, header.seq, header.parts, header.bytes)
        assembly = self._assemblies.get(peer)
        if header.part > 0:
            if assembly is None:  # e.g. after a restart: the sender begins again with part 0
                raise Refusal(
                    ErrorCode.SEQUENCE_GAP, f"part {header.part} came without the ones before it", "part"
                )
            if assembly.key != key:
                raise Refusal(ErrorCode.BAD_REQUEST, f"part {header.part} is of another value", "part")
            return assembly
        self.forget(peer)  # the sender begins again
        if not 1 < header.parts <= header.bytes:
            raise Refusal(ErrorCode.BAD_REQUEST, "parts must be at least 2, and at most bytes", "parts")
        if header.bytes > self._value_max:
            raise Refusal(
                ErrorCode.TOO_LARGE,
                f"the value is larger than limits.valueBytes ({self._value_max})",
                "bytes",
            )
        assembly = self._assemblies[peer] = _Assembly(client, key, header.bytes, self._clock + GRACE_SECONDS)
        return assembly

    def _append(self, peer: RoutingId, assembly: _Assembly, header: RequestHeader, body: bytes) -> None:
        if header.part != assembly.next_part:
            raise Refusal(
                ErrorCode.BAD_REQUEST, f"part {header.part} came, part {assembly.next_part} was due", "part"
            )
        size = len(body)
        if len(assembly.buffer) + size > assembly.size:
            raise Refusal(ErrorCode.BAD_REQUEST, f"the parts hold more than {assembly.size} bytes", "bytes")
        assembly.due = min(assembly.due + size / BYTES_PER_SECOND, self._clock + GRACE_SECONDS)
        if self.bytes + size > self._budget or len(self._assemblies) > VALUES_MAX:
            self._make_room(peer, size)
        assembly.buffer += body
        self.bytes += size
        assembly.next_part += 1
        assembly.heard = time.monotonic()

    def _make_room(self, peer: RoutingId, size: int) -> None:
        """Drop other values until there is room for a part.

        Raises:
            Refusal: BUSY; the value of this very part is the one that must give way.
        """
        now = time.monotonic()
        self._clock += min(now - self._ticked, _STEP_SECONDS)
        self._ticked = now
        fits = len(self._assemblies[peer].buffer) + size <= self._budget
        while self.bytes + size > self._budget or len(self._assemblies) > VALUES_MAX:
            victim = self._victim(peer) if fits else peer
            if victim == peer:
                raise Refusal(ErrorCode.BUSY, "too many large values are coming in at once")
            self.gave_way += 1
            self.forget(victim)

    def _victim(self, peer: RoutingId) -> RoutingId:
        """Choose the value that gives way to a part of this connection; it may be its own."""
        full = len(self._assemblies) > VALUES_MAX
        candidates = [(of, one) for of, one in self._assemblies.items() if one.buffer or full or of == peer]
        late = [(one.due, n) for n, (_, one) in enumerate(candidates) if one.due < self._clock]
        if late:
            return candidates[min(late)[1]][0]
        values: dict[Client, int] = {}
        for _, one in candidates:
            values[one.client] = values.get(one.client, 0) + 1
        most = max(values.values())
        return next(of for of, one in reversed(candidates) if values[one.client] == most)
