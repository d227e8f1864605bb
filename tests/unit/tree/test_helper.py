"""The helper ends with the process that it helps, whatever that has left unread."""

import os
import socket

import pytest

from perstack_stored.journal.reader import LogPosition
from perstack_stored.tree.helper import Slice, serve

PIECE = Slice(LogPosition(1, 1, 64), LogPosition(9, 1, 512), 1)


class Ended(BaseException):
    """The process has ended."""


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(status: int) -> None:
        assert status == 0
        raise Ended

    monkeypatch.setattr(os, "_exit", leave)


def test_a_process_that_closes_the_socket_ends_its_helper() -> None:
    first, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, line:
        first.send(PIECE.pack())
        first.shutdown(socket.SHUT_WR)
        with pytest.raises(Ended):
            serve(line, lambda piece: 3 if piece == PIECE else None)
        assert first.recv(64)


@pytest.mark.parametrize("dies", ["before its answer", "after its answer"])
def test_a_process_that_is_killed_ends_its_helper(dies: str) -> None:
    """An answer that was not read makes a reset of the close; one that can't be sent a broken pipe."""
    first, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    written = []

    def write(piece: Slice) -> int:
        written.append(piece)
        if dies == "before its answer" or len(written) == 2:
            first.close()
        return 0

    with line:
        for _ in range(2):
            first.send(PIECE.pack())
        with pytest.raises(Ended):
            serve(line, write)
    assert written
