"""The tree gets no position beyond what the index, as it is now, can number; reports of both arrive."""

import socket
from types import SimpleNamespace
from typing import Any

from perstack_stored.access.peers import Peers
from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.access.rules import AccessRules
from perstack_stored.config.settings import Settings
from perstack_stored.journal.clock import JournalClock
from perstack_stored.journal.reader import LogPosition
from perstack_stored.observe.counters import LoopCounters
from perstack_stored.observe.systemd import Notifier
from perstack_stored.server.projections import ProjectionCoordinator
from perstack_stored.transport.endpoints import Endpoints

LAST_RECORD_MS = 1_000_000_000_000


def worker(place: int, *, due: bool = False) -> Any:
    got: list[int] = []
    aged: list[int] = []
    return SimpleNamespace(
        kind="", place=LogPosition(place, 1, place), got=got, sent=None, starts=0, fileno=lambda: None,
        receive=lambda: False, due=lambda: due, start=lambda: None,
        send=lambda mark: got.append(mark.position), aged=aged, send_aged=aged.append, fault="",
    )  # fmt: skip


class NobodyFollows:
    """Stands in for `LongPolls`."""

    def __len__(self) -> int:
        return 0

    def on_indexed(self, position: int) -> None:
        """Nobody waits for it."""


def coordinator_of(index: Any, tree: Any, endpoints: Any) -> ProjectionCoordinator:
    faults = SimpleNamespace(index_damage=str)
    parts: Any = SimpleNamespace(
        projections=(index, tree),
        journal=SimpleNamespace(mark=LogPosition(9, 1, 9), clock=JournalClock(LAST_RECORD_MS)),
        reads=SimpleNamespace(long_polls=NobodyFollows(), index_is_readable=True, faults=faults),
        endpoints=endpoints,
        notifier=Notifier(),
        counters=LoopCounters(),
    )
    nobody: Any = None
    return ProjectionCoordinator(parts, nobody)


def test_a_tree_that_begins_waits_for_an_index_that_fell_behind() -> None:
    """What the tree may hold already is in the journal: an index that ends before brings older files back."""
    index, tree = worker(5), worker(0, due=True)
    endpoints = SimpleNamespace(watch=lambda _fd: None, unwatch=lambda _fd: None)
    coordinator = coordinator_of(index, tree, endpoints)
    coordinator.follow()
    assert tree.got == []
    tree.due = lambda: False
    index.place = LogPosition(8, 1, 8)
    coordinator.follow()
    assert tree.got == []
    index.place = LogPosition(9, 1, 9)
    coordinator.follow()
    assert tree.got == [9]


def test_the_tree_counts_ages_by_the_time_that_retention_counts_by() -> None:
    """A clock that is years ahead of the last record is doubted."""
    tree = worker(9)
    coordinator_of(worker(9), tree, SimpleNamespace(watch=None, unwatch=None)).follow()
    assert 0 <= tree.aged[0] - LAST_RECORD_MS < 3_600_000


def test_reports_of_a_new_process_arrive_with_any_descriptor() -> None:
    """That of the process before, or of the other worker: the kernel has forgotten who was watched."""
    endpoints = Endpoints(Peers(AccessRules(), RateLimiter(0, 0)), Settings(), 10)
    workers = worker(9), worker(9)
    coordinator = coordinator_of(*workers, endpoints)

    def restart(lines: list[tuple[socket.socket, socket.socket]]) -> None:
        for one, (ours, _theirs) in zip(workers, lines, strict=True):
            one.starts += 1
            one.fileno = ours.fileno
        coordinator.follow()

    lines = [socket.socketpair(), socket.socketpair()]
    restart(lines)
    for _ in range(3):
        for line in lines:
            for end in line:
                end.close()
        pairs = [socket.socketpair(), socket.socketpair()]
        lines = [pairs[1], pairs[0]]  # the descriptors change places
        restart(lines)
        for ours, theirs in lines:
            theirs.send(b"x")
            assert endpoints.wait(10) == {ours.fileno()} <= coordinator.polled
            assert ours.recv(1) == b"x"
    for line in lines:
        for end in line:
            end.close()
    endpoints.close()


def test_the_tree_is_whole_when_it_reached_the_position_or_can_t() -> None:
    """Nothing waits for a tree that can't be written."""
    for reached, fault, whole in ((8, "", False), (9, "", True), (3, "the disk is full", True)):
        index, tree = worker(9), worker(reached)
        tree.fault = fault
        coordinator = coordinator_of(index, tree, SimpleNamespace(watch=lambda _fd: None))
        seen = [coordinator._counters.tree_is_whole]
        coordinator.await_tree(9)
        seen.append(coordinator._counters.tree_is_whole)
        coordinator.follow()
        assert [*seen, coordinator._counters.tree_is_whole] == [True, False, whole]
