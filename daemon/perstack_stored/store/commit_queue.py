"""The commit queue: admitted stores wait here, in order for each client, within a window and a budget."""

from collections import deque
from collections.abc import Iterator

from perstack_storage.protocol import ErrorCode
from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal
from perstack_stored.model.shares import Client
from perstack_stored.protocol.messages import RoutingId

from .requests import StoreRequest

# Memory that a request and an item take besides their values. It is counted too, so that many tiny or empty
# stores are bounded as well.
REQUEST_BYTES = 512
ITEM_BYTES = 128


def memory_of(request: StoreRequest) -> int:
    """Bytes of memory that a request takes while it waits."""
    return request.size + REQUEST_BYTES + ITEM_BYTES * len(request.items)


class _Line:
    """The stores of one client, in the order of their arrival."""

    __slots__ = ("bytes", "client", "requests")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.requests: deque[tuple[int, StoreRequest]] = deque()  # each with its arrival number
        self.bytes = 0


class CommitQueue:
    """A queue of stores for each client; batches take from each in turn.

    While all that waits fits into one batch, turns make no difference, and the stores stand in one list.

    Attributes:
        bytes: memory of the stores in the queue.
        came: count of all stores ever admitted.
    """

    def __init__(self) -> None:
        self._all: list[StoreRequest] = []  # what waits while it fits into one batch; else it is empty
        self._records = self._value_bytes = 0  # of the stores in that list
        self._lines: dict[Client, _Line] = {}
        self._turns: deque[_Line] = deque()  # all lines, the next one to serve first
        self._most: _Line | None = None  # the one that gave way last
        self._by_peer: dict[RoutingId, int] = {}  # bytes in the lines
        self._count = 0
        self.bytes = 0
        self.came = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[StoreRequest]:
        yield from self._all
        for line in self._turns:
            yield from [request for _, request in line.requests]

    def passed(self) -> int:
        """Return the count of stores up to the oldest one in the queue: all before it have left."""
        if self._all:
            return self.came - len(self._all)
        return min([line.requests[0][0] for line in self._turns], default=self.came)

    def admit(self, request: StoreRequest, bounds: Settings) -> list[StoreRequest]:
        """Append a store (admission).

        Returns:
            the stores that give way, the last ones of the client that has most; the caller refuses them.

        Raises:
            Refusal: BUSY.
        """
        size = memory_of(request)
        if self._fits_one_batch(request, size, bounds):
            self._all.append(request)
            self._records += len(request.items)
            self._value_bytes += request.size
            self._count += 1
            self.bytes += size
            self.came += 1
            return []
        self._form_lines()
        own_bytes = self._by_peer.get(request.envelope[0], 0)
        # The window of a client, each record in a request of its own, and one frame more.
        window = bounds.window_bytes + bounds.window_records * (REQUEST_BYTES + ITEM_BYTES)
        if own_bytes and own_bytes + size > window + bounds.frame_bytes_max:
            raise _busy()
        evicted: list[StoreRequest] = []
        if self._count and self.bytes + size > bounds.held_bytes_max:
            evicted = self._make_room(request.client, size, bounds.held_bytes_max)
        self._append(self.came, request, size)
        self.came += 1
        return evicted

    def next_batch(self, bounds: Settings) -> list[StoreRequest]:
        """Remove and return the next batch, at most as many as one commit may have."""
        if self._all:
            if self._records <= bounds.commit_records_max and self._value_bytes <= bounds.commit_bytes_max:
                batch, self._all = self._all, []
                self._count = self.bytes = self._records = self._value_bytes = 0
                return batch
            self._form_lines()  # the bounds have changed
        batch = []
        records = size = 0
        turns = self._turns
        while turns:
            line = turns[0]
            request = line.requests[0][1]
            records += len(request.items)
            size += request.size
            if batch and (records > bounds.commit_records_max or size > bounds.commit_bytes_max):
                break
            line.requests.popleft()
            batch.append(request)
            self._let_go(line, request)
            if line.requests:
                turns.rotate(-1)
            else:
                turns.popleft()
                del self._lines[line.client]
        return batch

    def _fits_one_batch(self, request: StoreRequest, size: int, bounds: Settings) -> bool:
        """Whether a store can join the list: no bound of a client or of a batch is near."""
        return (
            not self._turns
            and self.bytes + size <= min(bounds.window_bytes, bounds.held_bytes_max)
            and self._records + len(request.items) <= bounds.commit_records_max
            and self._value_bytes + request.size <= bounds.commit_bytes_max
        )

    def _form_lines(self) -> None:
        """Move the stores of the list into a line for each client."""
        if not self._all:
            return
        waiting, self._all = self._all, []
        self._count = self.bytes = self._records = self._value_bytes = 0
        for number, request in enumerate(waiting, self.came - len(waiting)):
            self._append(number, request, memory_of(request))

    def _make_room(self, newcomer: Client, size: int, bytes_max: int) -> list[StoreRequest]:
        """Evict the last stores of the clients that have most, until a client that has less finds room.

        Raises:
            Refusal: BUSY; the newcomer has most itself.
        """
        mine = self._lines.get(newcomer)
        wanted = size + (0 if mine is None else mine.bytes)
        evicted: list[tuple[int, StoreRequest]] = []
        while self.bytes + size > bytes_max:
            most = self._most
            share = self.bytes // len(self._lines)
            if most is None or most.bytes <= share or self._lines.get(most.client) is not most:
                most = self._most = max(self._lines.values(), key=lambda line: line.bytes)
            if most is mine or most.bytes <= wanted:
                # The newcomer is refused: the evicted stores go back to the ends of their lines.
                for number, request in reversed(evicted):
                    self._append(number, request, memory_of(request))
                raise _busy()
            evicted.append(most.requests.pop())
            self._let_go(most, evicted[-1][1])
            if not most.requests:
                self._turns.remove(most)
                del self._lines[most.client]
        return [request for _, request in evicted]

    def _append(self, number: int, request: StoreRequest, size: int) -> None:
        line = self._lines.get(request.client)
        if line is None:
            line = self._lines[request.client] = _Line(request.client)
            self._turns.append(line)
        line.requests.append((number, request))
        line.bytes += size
        peer = request.envelope[0]
        self._by_peer[peer] = self._by_peer.get(peer, 0) + size
        self._count += 1
        self.bytes += size

    def _let_go(self, line: _Line, request: StoreRequest) -> None:
        peer, size = request.envelope[0], memory_of(request)
        line.bytes -= size
        self._count -= 1
        self.bytes -= size
        self._by_peer[peer] -= size
        if not self._by_peer[peer]:
            del self._by_peer[peer]


def _busy() -> Refusal:
    return Refusal(ErrorCode.BUSY, "too many stores wait; the window or the daemon's budget is used up")
