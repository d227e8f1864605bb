"""Values that are stored all or none, by the synchronous client."""

from collections.abc import Callable
from types import TracebackType

from perstack_storage._core.conditions import BATCH_OP, Collected, Fence


class AtomicBatch(Collected):
    """Made by `Client.atomic`; used within `with`.

        with client.atomic() as batch:
            batch.store_event(event)
            batch.store_checkpoint(checkpoint)

    Each method takes the value as it is at the call. Leaving the block stores all of them, or none: where
    one is refused, `Refused` has its `index`. A block that ends by an exception stores nothing.
    """

    def __init__(self, store: Callable[[str, bytes], int], fence: Fence | None = None) -> None:
        super().__init__(fence)
        self._store_all = store

    def __enter__(self) -> "AtomicBatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        body = self._end(error)
        if body is not None:
            self._stored(self._store_all(BATCH_OP, body))
