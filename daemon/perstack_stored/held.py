"""Stores that wait to be written, in the order of their coming, within each client's window and a budget."""

from collections import deque
from collections.abc import Iterator

from perstack_storage._errors import ErrorCode

from .errors import Refusal
from .outbox import RoutingId
from .settings import Settings
from .stores import StoreRequest

# What a request and an item take beside their values. Counted too, so that a crowd of tiny stores, or of
# empty ones, finds a bound as well.
REQUEST_BYTES = 512
ITEM_BYTES = 128


def memory_of(request: StoreRequest) -> int:
    """Bytes that a request takes while it waits."""
    return request.size + REQUEST_BYTES + ITEM_BYTES * len(request.items)


class HeldStores:
    """A queue of stores.

    Attributes:
        bytes: what they take.
    """

    def __init__(self) -> None:
        self._requests: deque[StoreRequest] = deque()
        self._by_peer: dict[RoutingId, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[StoreRequest]:
        return iter(self._requests)

    def hold(self, request: StoreRequest, bounds: Settings) -> None:
        """Append a store.

        Raises:
            Refusal: BUSY.
        """
        peer, size = request.envelope[0], memory_of(request)
        held = self._by_peer.get(peer, 0)
        # What a client may have under way by its window, each record in a request of its own, and a frame.
        window = bounds.window_bytes + bounds.window_records * (REQUEST_BYTES + ITEM_BYTES)
        over_budget = self._requests and self.bytes + size > bounds.held_bytes_max
        if over_budget or (held and held + size > window + bounds.frame_bytes_max):
            raise Refusal(
                ErrorCode.BUSY, "too many stores wait; the window or the daemon's budget is used up"
            )
        self._requests.append(request)
        self._by_peer[peer] = held + size
        self.bytes += size

    def take(self, bounds: Settings) -> list[StoreRequest]:
        """Take out the next ones, as many as one commit may have."""
        batch: list[StoreRequest] = []
        records = size = 0
        while self._requests:
            request = self._requests[0]
            records += len(request.items)
            size += request.size
            if batch and (records > bounds.commit_records_max or size > bounds.commit_bytes_max):
                break
            batch.append(self._requests.popleft())
            self._let_go(request)
        return batch

    def _let_go(self, request: StoreRequest) -> None:
        peer, size = request.envelope[0], memory_of(request)
        self.bytes -= size
        self._by_peer[peer] -= size
        if not self._by_peer[peer]:
            del self._by_peer[peer]
