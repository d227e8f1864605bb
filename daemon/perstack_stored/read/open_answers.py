"""Large answers that clients pull part by part, with a budget of memory that clients share."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.portions import ByteShares
from perstack_stored.protocol.messages import RoutingId

Buffer = bytes | memoryview

_IDLE_SECONDS = 5.0  # an answer that was not pulled for this long gives way to any other
_LARGE_BYTES = 1 << 20  # an answer of this memory is counted while its first part is made


class OpenRead:
    """A large answer in progress: pieces not made yet, and bytes made and not sent yet.

    Attributes:
        peer, client: the connection that asked, and the client that owns it, by `Peers.client`.
        name: its name for the client; "" while it is not kept.
        part: number of the part made last.
        is_complete: nothing is left of it.
        is_gone: it gave way to another one, or its client has left.
        used: when it was pulled last.
        counted: bytes of memory that it was counted with.
    """

    __slots__ = (
        "_left", "_left_bytes", "_memory", "_pieces", "client", "counted", "is_complete", "is_gone", "masked",
        "name", "part", "peer", "used",
    )  # fmt: skip

    def __init__(
        self,
        peer: RoutingId,
        client: str,
        pieces: Iterator[Buffer],
        memory: Callable[[], int] | None = None,
        *,
        masked: bool,
    ) -> None:
        """`memory` returns the bytes of the pieces that are not made yet."""
        self.peer = peer
        self.client = client
        self.masked = masked
        self.name = ""
        self.part = -1
        self.is_complete = self.is_gone = False
        self.used = time.monotonic()
        self.counted = 0
        self._pieces = pieces
        self._memory = memory
        self._left = memoryview(b"")
        self._left_bytes = 0  # of the piece that it is the end of

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        made = self._left_bytes if self._left else 0
        return made + (0 if self._memory is None else self._memory())

    def make_part(self, size: int, buffers: list[Buffer]) -> Iterator[None]:
        """Append the next part to `buffers`, in a step for each piece. The rest is not copied."""
        buffers.append(self._left)
        length = len(self._left)
        self._left = memoryview(b"")
        while length <= size:
            piece = next(self._pieces, None)
            if piece is None:
                self.is_complete = True
                break
            buffers.append(piece)
            length += len(piece)
            yield
        else:
            last = memoryview(buffers.pop())
            fits = len(last) - (length - size)
            buffers.append(last[:fits])
            self._left, self._left_bytes = last[fits:], len(last)
        self.part += 1
        self.used = time.monotonic()


class OpenReads:
    """The answers that are kept, least recently pulled first. Any thread may use it.

    When there is no room, the client that holds most loses its least recently pulled answer.
    """

    def __init__(self, count_max: int, bytes_max: int, keep_seconds: float) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._keep_seconds = keep_seconds
        self._lock = threading.Lock()
        self._reads: OrderedDict[str, OpenRead] = OrderedDict()
        self._by_peer: dict[RoutingId, list[OpenRead]] = {}
        self._counts = ByteShares()
        self._bytes = ByteShares()
        self._named = 0

    def __len__(self) -> int:
        return len(self._reads)

    @property
    def bytes(self) -> int:
        """Memory of the answers that are kept."""
        return self._bytes.total

    def note(self, read: OpenRead, prefix: str) -> None:
        """Count the memory of an answer while a part is made: it may have grown.

        Raises:
            Refusal: BUSY.
        """
        if read.name or read.size >= _LARGE_BYTES:
            self.keep(read, prefix)

    def keep(self, read: OpenRead, prefix: str) -> None:
        """Keep an answer, or update its memory; gives it a name.

        Raises:
            Refusal: BUSY.
        """
        with self._lock:
            if read.is_gone:
                raise Refusal(ErrorCode.BUSY, "a large answer gave way to those of other clients")
            if not read.name:
                self._forget_old()
                self._make_room(self._counts, read, 1, self._count_max)
                self._named += 1
                read.name = f"{prefix}{self._named}"
                self._reads[read.name] = read
                self._by_peer.setdefault(read.peer, []).append(read)
                self._counts.add(read.client, 1)
            more = read.size - read.counted
            if more > 0:
                self._make_room(self._bytes, read, more, self._bytes_max)
            self._bytes.add(read.client, more)
            read.counted += more

    def take(self, name: str, peer: RoutingId, part: int, *, masked: bool) -> OpenRead:
        """Return an answer for its next part.

        Raises:
            Refusal: READ_GONE.
        """
        with self._lock:
            self._forget_old()
            read = self._reads.get(name)
            if read is None or (read.peer, read.masked) != (peer, masked) or part != read.part + 1:
                raise Refusal(ErrorCode.READ_GONE, "the rest of that answer is no longer kept")
            self._reads.move_to_end(name)
            return read

    def drop(self, read: OpenRead) -> None:
        """Drop an answer, if it is kept."""
        with self._lock:
            self._drop(read)

    def left(self, peer: RoutingId) -> None:
        """Drop the answers of a connection that ended."""
        if peer in self._by_peer:
            with self._lock:
                for read in self._by_peer.get(peer, ())[:]:
                    self._drop(read)

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            for read in list(self._reads.values()):
                self._drop(read)

    def _make_room(self, shares: ByteShares, read: OpenRead, more: int, most: int) -> None:
        """Let others give way until there is room for one; alone, it may take as much as it needs."""
        while shares.total + more > most and any(other is not read for other in self._reads.values()):
            victim = self._to_give_way(shares, read, more)
            if victim is None:
                raise Refusal(
                    ErrorCode.BUSY, "large answers that are being pulled take all the room there is"
                )
            self._drop(victim)

    def _to_give_way(self, shares: ByteShares, read: OpenRead, more: int) -> OpenRead | None:
        greatest = shares.greatest()
        oldest = [other for other in self._reads.values() if other is not read]
        if greatest != read.client and shares.of(greatest) > shares.of(read.client) + more:
            return next(other for other in oldest if other.client == greatest)
        # All clients hold the same, or none holds more than the one that asks.
        return oldest[0] if oldest[0].used < time.monotonic() - _IDLE_SECONDS else None

    def _drop(self, read: OpenRead) -> None:
        if self._reads.pop(read.name, None) is None:
            return
        read.is_gone = True
        self._counts.add(read.client, -1)
        self._bytes.add(read.client, -read.counted)
        read.counted = 0
        of_peer = self._by_peer[read.peer]
        of_peer.remove(read)
        if not of_peer:
            del self._by_peer[read.peer]

    def _forget_old(self) -> None:
        limit = time.monotonic() - self._keep_seconds
        while self._reads and (read := next(iter(self._reads.values()))).used < limit:
            self._drop(read)
