"""Stores that wait: in order, within each client's window and the budget of all, whatever their size."""

from collections.abc import Iterator

import pytest

from perstack_storage._errors import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.held import ITEM_BYTES, REQUEST_BYTES, HeldStores, memory_of
from perstack_stored.settings import Settings
from perstack_stored.stores import Payload, StoreRequest
from perstack_stored.wire import BATCH_OP

MIB = 1 << 20
MANY = 100_000
BOUNDS = Settings(
    window_bytes=MIB,
    window_records=100,
    frame_bytes_max=MIB,
    held_bytes_max=8 * MIB,
    commit_records_max=10,
    commit_bytes_max=MIB,
)


def request(id: int = 1, *, peer: bytes = b"a", size: int = 0, items: int = 1) -> StoreRequest:
    """A store of so many values, of so many bytes together."""
    values: list[tuple[int, Payload]] = [(1, bytes(size // items))] * items
    return StoreRequest((peer, False), id, None, 0, 0, values, items > 1, size, BATCH_OP)


def held_until_refused(held: HeldStores, requests: Iterator[StoreRequest]) -> int:
    """How many were held before one was refused."""
    before = len(held)
    with pytest.raises(Refusal) as refused:  # noqa: PT012 - whichever comes to the bound
        while True:
            held.hold(next(requests), BOUNDS)
    assert refused.value.code is ErrorCode.BUSY
    return len(held) - before


def test_stores_come_out_in_order_and_nothing_is_counted_of_what_is_gone() -> None:
    """Of several clients, with empty ones among them."""
    held = HeldStores()
    for id in range(30):
        held.hold(request(id, peer=b"ab"[id % 2 :][:1], size=id % 3), BOUNDS)
    assert held.bytes == sum(memory_of(r) for r in held)
    ids = [r.id for _ in range(3) for r in held.take(BOUNDS)]
    assert ids == list(range(30))
    assert (len(held), held.bytes, held.take(BOUNDS)) == (0, 0, [])
    assert (
        held_until_refused(held, iter([request(size=2 * MIB), request(size=MIB)])) == 1
    )  # as at the beginning


@pytest.mark.parametrize(
    ("requests", "taken"),
    [
        ([request(items=4)] * 3, [2, 1]),
        ([request(size=MIB // 2)] * 3, [2, 1]),
        ([request(items=50), request()], [1, 1]),
        ([request(size=3 * MIB), request()], [1, 1]),
    ],
)
def test_a_commit_is_bounded_but_has_one_store_at_least(
    requests: list[StoreRequest], taken: list[int]
) -> None:
    """By records and by bytes."""
    held = HeldStores()
    for n, one in enumerate(requests):
        held.hold(one._replace(envelope=(bytes((n,)), False)), BOUNDS)
    assert [len(held.take(BOUNDS)) for _ in taken] == taken


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_client_s_window_fits_and_a_flood_does_not(size: int) -> None:
    """A record in a request of its own each: as many as are granted, and not many times more."""
    fitting = min(BOUNDS.window_records, BOUNDS.window_bytes // max(size, 1))
    held = held_until_refused(HeldStores(), (request(size=size) for _ in range(MANY)))
    assert fitting <= held <= (BOUNDS.window_bytes + BOUNDS.frame_bytes_max) // REQUEST_BYTES


@pytest.mark.parametrize("items", [1, 64])
def test_a_crowd_of_empty_stores_finds_the_budget(items: int) -> None:
    """Each from another client: what they take in memory is counted, not only their values."""
    peers = (request(peer=b"%d" % n, items=items) for n in range(MANY))
    held = held_until_refused(HeldStores(), peers)
    assert held == BOUNDS.held_bytes_max // (REQUEST_BYTES + items * ITEM_BYTES)


def test_what_is_alone_is_held_however_large() -> None:
    """It could never be stored otherwise."""
    held = HeldStores()
    held.hold(request(size=20 * MIB), BOUNDS)
    assert held_until_refused(held, iter([request(peer=b"b")])) == 0
