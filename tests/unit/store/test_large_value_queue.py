"""Large stores are checked beside the serving loop; the order of a session and each client's share hold."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from perstack_storage._core.errors import ErrorCode
from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal
from perstack_stored.model.kinds import Kind
from perstack_stored.store import large_values as apart
from perstack_stored.store import value_checker as checker
from perstack_stored.store.large_values import LARGE_VALUE_BYTES, LargeValueQueue
from perstack_stored.store.requests import StoreRequest
from perstack_stored.store.value_checker import Checked, Items, Refusals, ValueChecker, check_all
from tests.helpers import signals
from tests.helpers.daemon import eventually
from tests.helpers.datadir import SESSION_A, SESSION_B, dumps, event

BOUNDS = Settings(parts_bytes_max=8 << 20, commit_records_max=10, commit_bytes_max=4 << 20)
LARGE, SMALL = LARGE_VALUE_BYTES + 1, 10


class FakeChecker:
    """Checks when the test asks for it."""

    def __init__(self, _wake: Callable[[], None]) -> None:
        self.begun: list[Items] = []
        self.done: Checked | None = None

    def start(self, items: Items) -> None:
        self.begun.append(items)

    def finished(self) -> Checked | None:
        done, self.done = self.done, None
        return done

    def stop(self) -> None:
        pass


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> LargeValueQueue:
    """With connections of clients by their first letter."""
    monkeypatch.setattr(apart, "ValueChecker", FakeChecker)
    return LargeValueQueue(lambda: None, lambda peer: str(peer)[:3])


def request(id: int, size: int, key: bytes | None = SESSION_A, peer: bytes = b"a1") -> StoreRequest:
    return StoreRequest((peer, False), id, key, 1, 0, [(3, bytes(size))], False, size, "storeEvent")


def begun(stores: LargeValueQueue) -> list[Any]:
    fake = stores._checker
    assert isinstance(fake, FakeChecker)
    return fake.begun


def pass_next(stores: LargeValueQueue, refusals: Refusals | None = None) -> None:
    fake = stores._checker
    assert isinstance(fake, FakeChecker)
    fake.done = Checked(refusals or {}, {})
    stores.collect_check()


def taken(stores: LargeValueQueue, after: int = 0) -> list[int]:
    return [request.id for _, request in stores.next_batch(BOUNDS, after)]


def test_a_session_keeps_its_order_and_others_do_not_wait(stores: LargeValueQueue) -> None:
    """What follows a large store in its session comes after it, and nothing else is held up."""
    stores.admit(request(1, LARGE), BOUNDS, 0)
    assert stores.has(request(2, SMALL))
    assert not stores.has(request(9, SMALL, SESSION_B))
    assert not stores.has(request(9, SMALL, None))
    for id, size in ((2, SMALL), (3, LARGE), (4, SMALL)):
        stores.admit(request(id, size), BOUNDS, 0)
    stores.admit(request(5, LARGE, None), BOUNDS, 0)
    assert taken(stores) == []
    pass_next(stores)
    assert stores.has(request(6, SMALL))
    stores.admit(request(6, SMALL), BOUNDS, 0)
    assert taken(stores) == [1, 2]
    assert [r.id for r in stores] == [3, 4, 6, 5]
    pass_next(stores)
    assert taken(stores) == [3, 4, 6]
    pass_next(stores)
    assert taken(stores) == [5]
    assert (len(stores), stores.bytes, bool(stores)) == (0, 0, False)


def test_what_came_after_a_checked_store_waits_for_its_commit(stores: LargeValueQueue) -> None:
    """Also where the check has passed and the commit must wait."""
    stores.admit(request(1, LARGE), BOUNDS, 7)
    pass_next(stores)
    assert taken(stores, 6) == []  # a store before it is still held elsewhere
    assert stores.has(request(2, SMALL))
    stores.admit(request(2, SMALL), BOUNDS, 7)
    assert taken(stores, 7) == [1, 2]
    assert not stores.has(request(3, SMALL))


def test_what_is_wrong_goes_with_the_store(stores: LargeValueQueue) -> None:
    """It is checked once; a small store that waited is checked at its commit."""
    stores.admit(request(1, LARGE), BOUNDS, 0)
    stores.admit(request(2, SMALL), BOUNDS, 0)
    wrong = {0: Refusal(ErrorCode.BAD_JSON, "no JSON")}
    pass_next(stores, wrong)
    assert [request.refusals for _, request in stores.next_batch(BOUNDS, 0)] == [wrong, None]


def test_clients_are_served_in_turn(stores: LargeValueQueue) -> None:
    """One that sends many large values holds up another's by one of them."""
    for id in range(5):
        stores.admit(request(id, LARGE + id, None), BOUNDS, 0)
    stores.admit(request(9, LARGE + 9, None, b"b1"), BOUNDS, 0)
    for _ in range(5):
        pass_next(stores)
    assert [len(items[0][1]) - LARGE for items in begun(stores)] == [0, 1, 9, 2, 3, 4]


def test_a_client_has_half_of_the_room_and_one_value_always_has_some(stores: LargeValueQueue) -> None:
    """Over all of its connections."""
    stores.admit(request(1, 9 << 20, None), BOUNDS, 0)
    with pytest.raises(Refusal) as refused:
        stores.admit(request(2, LARGE, None), BOUNDS, 0)
    assert refused.value.code is ErrorCode.BUSY
    pass_next(stores)
    assert taken(stores) == [1]
    for id in range(3):
        stores.admit(request(id, 1 << 20, None, b"a%d" % id), BOUNDS, 0)
    with pytest.raises(Refusal):
        stores.admit(request(3, 1 << 20, None, b"a9"), BOUNDS, 0)
    for id in range(4):
        stores.admit(request(id, 1 << 20, None, b"b%d" % id), BOUNDS, 0) if id < 3 else None
    assert len(stores) == 6


def test_a_commit_takes_no_more_than_it_may_have(stores: LargeValueQueue) -> None:
    """Values above that bound one by one."""
    for id in range(3):
        stores.admit(request(id, 2 << 20, None, b"%c1" % (97 + id)), BOUNDS, 0)
        pass_next(stores)
    assert [taken(stores), taken(stores), taken(stores)] == [[0, 1], [2], []]


# --- the process -----------------------------------------------------------------------------------

GOOD = dumps(event())
ITEMS: Items = [(Kind.EVENT, GOOD), (Kind.JOB, GOOD), (Kind.EVENT, bytearray(GOOD[:-1])), (Kind.EVENT, b"")]


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def running(woken: threading.Event) -> Any:
    """A checker, stopped at the end."""
    made = ValueChecker(woken.set)
    yield made
    made.stop()


def answer(running: ValueChecker, woken: threading.Event, items: Items) -> dict[int, dict[str, object]]:
    woken.clear()
    running.start(items)
    assert woken.wait(60)
    found = running.finished()
    assert found is not None
    assert running.finished() is None
    return {i: refusal.as_dict() for i, refusal in found.refusals.items()}


def test_the_process_says_what_the_loop_would_say(running: ValueChecker, woken: threading.Event) -> None:
    """Codes, messages and fields, each by its item."""
    wanted = {i: refusal.as_dict() for i, refusal in check_all(ITEMS).refusals.items()}
    assert sorted(wanted) == [1, 2, 3]
    assert answer(running, woken, ITEMS) == wanted
    assert answer(running, woken, [(Kind.EVENT, GOOD)]) == {}


def test_a_process_that_died_is_replaced(running: ValueChecker, woken: threading.Event) -> None:
    """As after the system took its memory; nothing is refused for that."""
    answer(running, woken, ITEMS)
    assert running._helper is not None
    first = running._helper._process
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert sorted(answer(running, woken, ITEMS)) == [1, 2, 3]
    assert running._helper._process.pid != first.pid


def test_without_a_process_it_is_checked_all_the_same(
    running: ValueChecker, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no room for one more."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no room for a process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert sorted(answer(running, woken, ITEMS)) == [1, 2, 3]


def test_a_process_that_hangs_is_given_up(
    running: ValueChecker, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a silence that no check takes."""
    answer(running, woken, ITEMS)
    assert running._helper is not None
    running._helper._line.settimeout(0.1)
    signals.stop(running._helper._process.pid)
    assert sorted(answer(running, woken, ITEMS)) == [1, 2, 3]


def test_a_stop_does_not_wait_for_a_check(running: ValueChecker, woken: threading.Event) -> None:
    """The process is ended in the midst of it."""
    answer(running, woken, ITEMS)
    assert running._helper is not None
    process = running._helper._process
    signals.stop(process.pid)
    running.start(ITEMS)
    running.stop()
    assert process.returncode == -signal.SIGKILL


def test_the_process_ends_with_the_daemon() -> None:
    """Its line has no other end then."""
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(OSError, match="has ended"):
        checker.serve(theirs)
    theirs.close()


def test_an_idle_process_is_let_go(
    running: ValueChecker, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large values are rare; the next one starts it again."""
    monkeypatch.setattr(checker, "_IDLE_SECONDS", 0.05)
    answer(running, woken, ITEMS)
    eventually(lambda: running._helper is None, "the process is let go")
    assert sorted(answer(running, woken, ITEMS)) == [1, 2, 3]
