"""The client that holds most of a pool gives way."""

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.access.peers import Peers, process_of
from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.access.rules import AccessRules
from perstack_stored.model.shares import NOBODY, Shares


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_the_one_that_holds_most_is_known_at_each_step(steps: list[tuple[str, bool]]) -> None:
    """Whatever is taken and given back, in whatever order, as plain counting has it."""
    shares, counted = Shares(), Counter[str]()
    for client, takes in steps:
        if takes:
            shares.add(client)
            counted[client] += 1
        elif counted[client]:
            shares.remove(client)
            counted[client] -= 1
        most = max(counted.values(), default=0)
        name, held = shares.most()
        assert held == most
        assert counted[name] == most
        assert shares.total == sum(counted.values())
        assert all(shares.of(one) == counted[one] for one in "abcd")


def test_one_that_holds_less_takes_the_place_of_one_that_holds_most() -> None:
    """Not where it would then hold as much itself: the two would take turns for ever."""
    shares = Shares()
    assert shares.must_yield("a") is None
    for client in "aaab":
        shares.add(client)
    assert shares.must_yield("new") == "a"
    assert shares.must_yield("b") == "a"
    assert shares.must_yield("a") is None
    shares.remove("a")
    assert shares.must_yield("b") is None
    assert shares.must_yield("new") == "a"


def test_processes_of_another_namespace_are_distinguished(tmp_path: Path) -> None:
    """By the kernel's handle of each: they have no number here. Users are distinguished in any case."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path / "socket"], stdin=subprocess.PIPE)
    theirs = listener.accept()[0]
    mine = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    names: list[str] = []
    for sock in mine:
        sock.connect(str(tmp_path / "socket"))
        with listener.accept()[0] as accepted:
            names.append(process_of(accepted, len(names), 7))
    stranger = process_of(theirs, 9, 7)
    other.communicate()
    for sock in (*mine, theirs, listener):
        sock.close()
    assert stranger not in names
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 9):
        assert names[0] == names[1]
        assert "process" in names[0]
    assert all(name.startswith("user 7 ") for name in (*names, stranger))


@pytest.mark.parametrize("process", ["", "user 1 process 77"])
def test_a_client_has_one_name_and_what_it_held_is_freed_when_its_connection_ends(process: str) -> None:
    """Two connections of one process are one client; the end of each is reported by its number."""
    peers = Peers(AccessRules(), RateLimiter(0, 0))
    ended: list[object] = []
    peers.on_leaving(ended.append)
    name = peers.arrived(1, 1, 1, 0 if process else 12, process)
    peers.arrived(2, 1, 1, 0 if process else 12, process)
    assert name == (process or "pid 12")
    assert (peers.client(1), peers.client(2), peers.client(3)) == (name, name, NOBODY)
    peers.left(1)
    assert ended == [1]
    assert (peers.client(1), peers.client(2)) == (NOBODY, name)
