"""Stores that wait: in order, within each client's window and the budget of all, whatever their size."""

import dataclasses
from collections.abc import Iterator
from random import Random

import pytest

from perstack_storage._core.errors import ErrorCode
from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal
from perstack_stored.protocol.frames import BATCH_OP
from perstack_stored.store.commit_queue import ITEM_BYTES, REQUEST_BYTES, CommitQueue, memory_of
from perstack_stored.store.requests import Payload, StoreRequest

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


def request(
    id: int = 1, *, peer: bytes = b"a", size: int = 0, items: int = 1, client: str = ""
) -> StoreRequest:
    """A store of `items` values, with `size` bytes together."""
    values: list[tuple[int, Payload]] = [(1, bytes(size // items))] * items
    return StoreRequest((peer, False), id, None, 0, 0, values, items > 1, size, BATCH_OP, client)


def held_until_refused(held: CommitQueue, requests: Iterator[StoreRequest]) -> int:
    """How many were held before one was refused."""
    before = len(held)
    with pytest.raises(Refusal) as refused:  # noqa: PT012 - whichever comes to the bound
        while True:
            held.admit(next(requests), BOUNDS)
    assert refused.value.code is ErrorCode.BUSY
    return len(held) - before


def test_stores_come_out_in_order_and_nothing_is_counted_of_what_is_gone() -> None:
    """Of several clients, with empty ones among them."""
    held = CommitQueue()
    for id in range(30):
        held.admit(request(id, peer=b"ab"[id % 2 :][:1], size=id % 3), BOUNDS)
    assert held.bytes == sum(memory_of(r) for r in held)
    ids = [r.id for _ in range(3) for r in held.next_batch(BOUNDS)]
    assert ids == list(range(30))
    assert (len(held), held.bytes, held.next_batch(BOUNDS)) == (0, 0, [])
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
    held = CommitQueue()
    for n, one in enumerate(requests):
        held.admit(one._replace(envelope=(bytes((n,)), False)), BOUNDS)
    assert [len(held.next_batch(BOUNDS)) for _ in taken] == taken


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_client_s_window_fits_and_a_flood_does_not(size: int) -> None:
    """A record in a request of its own each: as many as are granted, and not many times more."""
    fitting = min(BOUNDS.window_records, BOUNDS.window_bytes // max(size, 1))
    held = held_until_refused(CommitQueue(), (request(size=size) for _ in range(MANY)))
    assert fitting <= held <= (BOUNDS.window_bytes + BOUNDS.frame_bytes_max) // REQUEST_BYTES


@pytest.mark.parametrize("items", [1, 64])
def test_a_crowd_of_empty_stores_finds_the_budget(items: int) -> None:
    """Each from another client: what they take in memory is counted, not only their values."""
    peers = (request(peer=b"%d" % n, items=items) for n in range(MANY))
    held = held_until_refused(CommitQueue(), peers)
    assert held == BOUNDS.held_bytes_max // (REQUEST_BYTES + items * ITEM_BYTES)


def test_a_single_value_of_any_size_is_held() -> None:
    """It could never be stored otherwise."""
    held = CommitQueue()
    held.admit(request(size=20 * MIB), BOUNDS)
    assert held_until_refused(held, iter([request(peer=b"b")])) == 0


def test_a_client_with_much_gives_way_to_one_with_little() -> None:
    """Its last stores are refused, on whichever connection; those before them stay in their order."""
    held = CommitQueue()
    flood = (request(n, peer=b"%d" % (n % 20), size=MIB // 2, client="hog") for n in range(MANY))
    count = held_until_refused(held, flood)
    evicted = held.admit(request(-1, peer=b"new", size=MIB, client="other"), BOUNDS)
    assert [one.id for one in evicted] == [count - 1, count - 2, count - 3][: len(evicted)]
    assert evicted
    assert held.bytes <= BOUNDS.held_bytes_max
    assert held_until_refused(held, iter([request(size=MIB, peer=b"more", client="hog")])) == 0
    assert held.bytes == sum(memory_of(one) for one in held)
    taken = [one.id for _ in range(MANY // 1000) for one in held.next_batch(BOUNDS)]
    assert taken[:3] == [0, -1, 1]
    assert taken == [0, -1, *range(1, count - len(evicted))]
    assert (len(held), held.bytes) == (0, 0)


def test_clients_with_as_much_as_the_newcomer_do_not_give_way() -> None:
    """The newcomer waits, and nothing of theirs is lost."""
    held = CommitQueue()
    for n in range(8):
        held.admit(request(n, peer=b"%d" % n, size=MIB - 1000, client=f"client {n}"), BOUNDS)
    before = list(held)
    with pytest.raises(Refusal, match="budget"):
        held.admit(request(9, peer=b"new", size=MIB, client="new"), BOUNDS)
    assert list(held) == before
    assert held.bytes == sum(memory_of(one) for one in before)


def test_stores_are_taken_from_each_client_in_turn() -> None:
    """One that has sent a thousand holds up nobody's first."""
    held = CommitQueue()
    for n in range(1000):
        held.admit(request(n, client="hog"), BOUNDS)
    for n in range(5):
        held.admit(request(5000 + n, peer=b"q%d" % n, client=f"quick {n}"), BOUNDS)
    assert sorted(one.id for one in held.next_batch(BOUNDS))[-5:] == [5000 + n for n in range(5)]


def test_what_came_before_is_known_to_have_left() -> None:
    """Whether it was taken, in whatever order, or gave way: a store that waits elsewhere follows it."""
    held = CommitQueue()
    for n in range(4):
        held.admit(request(n, peer=b"%d" % n, size=2 * MIB - 1000, client="hog"), BOUNDS)
    assert (held.came, held.passed()) == (4, 0)
    assert [one.id for one in held.admit(request(9, size=MIB, client="other"), BOUNDS)] == [3]
    came = held.came
    left: list[tuple[bool, set[int]]] = []
    while len(held):
        if len(left) < 2:
            held.admit(request(50, client=f"late {len(left)}"), BOUNDS)
        left.append((held.passed() >= came, {one.id for one in held}))
        held.next_batch(BOUNDS)
    assert all(passed == ids.isdisjoint(range(10)) for passed, ids in left)
    assert held.passed() == held.came


@pytest.mark.parametrize("seed", range(20))
def test_each_client_keeps_its_order_and_the_counts_are_true(seed: int) -> None:
    """Around the point where the stores stop fitting into one batch, also if the bounds change there."""
    random = Random(seed)
    queue = CommitQueue()
    waiting: dict[str, list[tuple[int, int]]] = {client: [] for client in "abc"}  # number and id
    admitted = 0
    bounds = BOUNDS
    for id in range(300):
        if random.random() < 0.05:
            bounds = dataclasses.replace(BOUNDS, commit_records_max=random.choice([3, 10]))
        if random.random() < 0.8:
            client = random.choice("aab")
            one = request(id, peer=client.encode(), items=random.choice([1, 2]), client=client)
            assert not queue.admit(one, bounds)
            waiting[client].append((admitted, id))
            admitted += 1
        else:
            for taken in queue.next_batch(bounds):
                assert waiting[taken.client].pop(0)[1] == taken.id
        numbers = [number for line in waiting.values() for number, _ in line]
        assert queue.passed() == min(numbers, default=admitted)
        assert (len(queue), queue.came) == (len(numbers), admitted)
        assert queue.bytes == sum(memory_of(one) for one in queue)
        assert sorted(one.id for one in queue) == sorted(id for line in waiting.values() for _, id in line)
