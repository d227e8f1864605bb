"""The HTTP port of the metrics under clients that are slow, many, or break off."""

import contextlib
import re
import socket
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import RunningDaemon, eventually, running_daemon


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningDaemon, int]]:
    base: Path = tmp_path_factory.mktemp("metrics") / "base"
    with running_daemon(base, "--metrics-bind", "127.0.0.1:0") as daemon:
        url = daemon.events("metrics_ready")[0]["url"]
        found = re.search(r":(\d+)/", str(url))
        assert found is not None
        yield daemon, int(found.group(1))


def _scrape(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        return bytes(answer.read())


def test_connections_that_say_nothing_keep_no_scraper_out(port: tuple[RunningDaemon, int]) -> None:
    """Nor those that have sent half of a request: the one that has been idle for longest gives way."""
    _, number = port
    with contextlib.ExitStack() as stack:
        for n in range(60):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", number)))
            if n % 2:
                idle.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            if n % 10 == 0:
                assert b"perstack_stored_position" in _scrape(number)
        assert b"perstack_stored_position" in _scrape(number)


@pytest.mark.long
def test_connections_that_break_off_leave_nothing_in_the_log(port: tuple[RunningDaemon, int]) -> None:
    """They are no fault of the daemon's, and come as fast as somebody likes."""
    daemon, number = port
    for n in range(100):
        with socket.create_connection(("127.0.0.1", number)) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(b"GET /metrics HTTP/1.1\r\n" + (b"\r\n" if n % 3 == 0 else b""))
    eventually(lambda: b"perstack_stored_position" in _scrape(number), "it answers")
    assert not daemon.events("metrics_failed")
