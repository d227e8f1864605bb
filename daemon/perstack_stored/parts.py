"""Values that come in parts: joined under one budget, forgotten when the sender falls silent. No I/O."""

import time

from perstack_storage._errors import ErrorCode

from .errors import Refusal
from .outbox import RoutingId
from .wire import RequestHeader


class _Assembly:
    __slots__ = ("buffer", "heard", "key", "next_part", "size")

    def __init__(self, key: tuple[object, ...], size: int) -> None:
        self.key = key
        self.size = size
        self.buffer = bytearray()  # grows with what comes: to announce much must not cost much
        self.next_part = 0
        self.heard = time.monotonic()


class Parts:
    """At most one value for each connection at a time."""

    def __init__(self, *, value_bytes_max: int, budget_bytes: int, silence_seconds: float) -> None:
        self._value_max = value_bytes_max
        self._budget = budget_bytes
        self._silence = silence_seconds
        self._assemblies: dict[RoutingId, _Assembly] = {}
        self.reserved_bytes = 0

    def take(self, peer: RoutingId, header: RequestHeader, body: bytes) -> bytearray | None:
        """Take a part; the whole value if it was the last one.

        Raises:
            Refusal: BAD_REQUEST, TOO_LARGE or BUSY; what had come of the value is forgotten.
        """
        try:
            assembly = self._assembly(peer, header)
            self._append(assembly, header, body)
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
        """Drop what a connection has sent of a value."""
        assembly = self._assemblies.pop(peer, None)
        if assembly is not None:
            self.reserved_bytes -= assembly.size

    def forget_silent(self) -> int:
        """Drop the values whose senders fell silent; how many there were."""
        limit = time.monotonic() - self._silence
        silent = [peer for peer, assembly in self._assemblies.items() if assembly.heard < limit]
        for peer in silent:
            self.forget(peer)
        return len(silent)

    def _assembly(self, peer: RoutingId, header: RequestHeader) -> _Assembly:
        key = (header.op, header.session, header.seq, header.parts, header.bytes)
        assembly = self._assemblies.get(peer)
        if header.part > 0:
            if assembly is None:  # as after a restart in between: the sender begins again with part 0
                raise Refusal(
                    ErrorCode.SEQUENCE_GAP, f"part {header.part} came without the ones before it", "part"
                )
            if assembly.key != key:
                raise Refusal(ErrorCode.BAD_REQUEST, f"part {header.part} is of another value", "part")
            return assembly
        self.forget(peer)  # the sender begins anew
        if not 1 < header.parts <= header.bytes:
            raise Refusal(ErrorCode.BAD_REQUEST, "parts must be at least 2, and at most bytes", "parts")
        if header.bytes > self._value_max:
            raise Refusal(
                ErrorCode.TOO_LARGE,
                f"the value is larger than limits.valueBytes ({self._value_max})",
                "bytes",
            )
        if self.reserved_bytes + header.bytes > self._budget:
            raise Refusal(ErrorCode.BUSY, "too many large values are coming in at once")
        assembly = self._assemblies[peer] = _Assembly(key, header.bytes)
        self.reserved_bytes += header.bytes
        return assembly

    def _append(self, assembly: _Assembly, header: RequestHeader, body: bytes) -> None:
        if header.part != assembly.next_part:
            raise Refusal(
                ErrorCode.BAD_REQUEST, f"part {header.part} came, part {assembly.next_part} was due", "part"
            )
        if len(assembly.buffer) + len(body) > assembly.size:
            raise Refusal(ErrorCode.BAD_REQUEST, f"the parts hold more than {assembly.size} bytes", "bytes")
        assembly.buffer += body
        assembly.next_part += 1
        assembly.heard = time.monotonic()
