"""The server tells the tree of no more than the index, as it knows it now, can number; and hears both."""

import socket
from types import SimpleNamespace
from typing import Any, cast

from perstack_stored.access import Rules
from perstack_stored.doors import Doors
from perstack_stored.peers import Peers
from perstack_stored.rates import Rates
from perstack_stored.segments import Mark
from perstack_stored.server import Server
from perstack_stored.settings import Settings


def follower(place: int, *, due: bool = False) -> Any:
    sent: list[int] = []
    return SimpleNamespace(
        kind="", place=Mark(place, 1, place), sent=sent, starts=0, fileno=lambda: None, receive=lambda: False,
        due=lambda: due, start=lambda: None, send=lambda mark: sent.append(mark.position),
    )  # fmt: skip


def test_a_tree_that_begins_waits_for_an_index_that_fell_behind() -> None:
    """What the tree may hold already is in the journal: an index that ends before brings older files back."""
    index, tree = follower(5), follower(0, due=True)
    server = SimpleNamespace(
        _index=index, _tree=tree, _tree_from=0, _journal=SimpleNamespace(mark=Mark(9, 1, 9)),
        _reads=SimpleNamespace(
            tail=SimpleNamespace(moved=lambda _position: None), index_is_there=True
        ),
        _polled=[], _poll_anew=lambda _polled: None,
        _tell_index=lambda: None, _hear_followers=lambda: None,
    )  # fmt: skip

    def follow() -> None:
        Server._follow_followers(cast(Server, server))

    follow()
    assert tree.sent == []
    tree.due = lambda: False
    index.place = Mark(8, 1, 8)
    follow()
    assert tree.sent == []
    index.place = Mark(9, 1, 9)
    follow()
    assert tree.sent == [9]


def test_a_new_process_is_heard_whatever_descriptor_its_line_has() -> None:
    """That of the process before, or of the other follower: the kernel has forgotten who was watched."""
    doors = Doors(Peers(Rules(), Rates(0, 0)), Settings(), 10)
    server: Any = SimpleNamespace(_doors=doors, _polled_fds=set())
    lines = [socket.socketpair(), socket.socketpair()]
    fds = [ours.fileno() for ours, _ in lines]
    Server._poll_anew(server, [(1, fds[0]), (1, fds[1])])
    for _ in range(3):
        for line in lines:
            for end in line:
                end.close()
        pairs = [socket.socketpair(), socket.socketpair()]
        lines = [pairs[1], pairs[0]]  # the descriptors change places
        Server._poll_anew(server, [(2, ours.fileno()) for ours, _ in lines])
        for ours, theirs in lines:
            theirs.send(b"x")
            assert doors.wait(10) == {ours.fileno()}
            assert ours.recv(1) == b"x"
    for line in lines:
        for end in line:
            end.close()
    doors.close()
