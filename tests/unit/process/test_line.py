"""The line between the server and a child process: no report is lost, and only the newest state counts."""

from collections.abc import Iterator

import pytest

from perstack_stored.process.line import ChildEnd, ChildReport, ServerEnd, receive_packet
from perstack_stored.process.socket_pair import pair

Ends = tuple[ServerEnd[int, ChildReport], ChildEnd[int, ChildReport]]


def unpack(packet: bytes) -> int:
    return int(packet)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = pair()
    server: ServerEnd[int, ChildReport] = ServerEnd(ours, lambda state: b"%d" % state, ChildReport)
    yield server, ChildEnd(theirs, unpack, 0)
    server.close()
    theirs.close()


def test_the_newest_state_counts_however_many_were_sent(ends: Ends) -> None:
    """A full socket loses none for good: it goes with the next call."""
    server, child = ends
    for state in range(1, 10_000):
        server.send(state)
    assert child.wait(0)
    assert child.state < 9_999
    server.send(9_999)
    assert child.wait(0)
    assert child.state == 9_999
    server.send(9_999)
    assert not child.wait(0)


def test_the_last_report_of_a_child_that_ended_is_heard() -> None:
    """Also where it ended with states unread; a long fault is cut."""
    ours, theirs = pair()
    server: ServerEnd[int, ChildReport] = ServerEnd(ours, lambda state: b"%d" % state, ChildReport)
    child: ChildEnd[int, ChildReport] = ChildEnd(theirs, unpack, 0)
    server.send(1)
    child.report(ChildReport(fault="why " * 1000))
    theirs.close()
    reports, is_gone = server.receive()
    assert ([len(report.fault) for report in reports], is_gone) == ([400], True)
    server.close()


def test_a_server_that_was_killed_before_it_read_a_report_has_gone() -> None:
    """The child gets its last states, and no error."""
    ours, theirs = pair()
    server: ServerEnd[int, ChildReport] = ServerEnd(ours, lambda state: b"%d" % state, ChildReport)
    child: ChildEnd[int, ChildReport] = ChildEnd(theirs, unpack, 0)
    child.report(ChildReport(fault="why"))
    server.send(7)
    server.close()
    assert [receive_packet(theirs) for _ in range(3)] == [b"7", b"", b""]
    theirs.close()
