"""A large value is checked beside the serving loop: however long that takes, everybody else is served."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, batch, event, session

LARGE = "x" * 400_000


def checkers(daemon: RunningDaemon) -> list[int]:
    """Pids of the processes that check large values."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == daemon.pid and b"perstack_stored.store.value_checker" in words:
            found.append(pid)
    return found


@contextmanager
def halted_checker(daemon: RunningDaemon, raw: Raw) -> Iterator[None]:
    """Large values stay unchecked in here."""
    raw.store("storeEvent", event(text=LARGE))
    (pid,) = checkers(daemon)
    signals.stop(pid)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base") as daemon:
        yield daemon


def test_others_are_served_while_a_large_value_is_checked(daemon: RunningDaemon) -> None:
    """Pings, stores and reads of others, and of the same client in no session."""
    with Raw(daemon.endpoint) as raw, Raw(daemon.endpoint) as other, Client(daemon.endpoint) as client:
        with halted_checker(daemon, raw):
            large = raw.send("storeEvent", event("large", text=LARGE))
            for one in (raw, other):
                assert one.ask("ping").header["ok"]
                assert one.store("storeEvent", event("small", stepNumber=1)) > 1
            client.store_event(event("theirs", stepNumber=2))
            assert len(client.get_event_contents("j1", "r1")) == 3
        answer = raw.receive()
        assert (answer.header["id"], answer.header["ok"]) == (large, True)
        assert len(client.get_event_contents("j1", "r1")) == 4
    assert checkers(daemon)


def test_a_session_keeps_its_order_around_large_values(daemon: RunningDaemon) -> None:
    """What comes after a large store of the session waits for it, a batch and a refused value too."""
    name = session()
    with Raw(daemon.endpoint) as raw, Raw(daemon.endpoint) as other:
        with halted_checker(daemon, other):
            ids = [raw.send("storeEvent", event("e1"), session=name, seq=1)]
            ids.append(raw.send("storeEvent", event("e2", text=LARGE), session=name, seq=2))
            ids.append(raw.send("storeEvent", event("e3"), session=name, seq=3))
            items, body = batch([("storeEvent", json.dumps(event(f"e{n}")).encode()) for n in (4, 5)])
            ids.append(raw.send("store", body, session=name, seq=4, items=items))
            ids.append(raw.send("storeEvent", event("e6", text=LARGE, jobId="/"), session=name, seq=6))
            ids.append(raw.send("storeEvent", event("e7"), session=name, seq=7))
            assert raw.receive().header["id"] == ids[0]
            assert other.ask("ping").header["ok"]
        answers = [raw.receive() for _ in ids[1:]]
        assert {answer.header["id"] for answer in answers} == set(ids[1:])
        assert [a.header["id"] for a in answers if not a.header["ok"]] == [ids[4]]
        assert next(a.code for a in answers if not a.header["ok"]) == "BAD_VALUE"
        again = raw.ask("storeEvent", event("e6", text=LARGE, jobId="/"), session=name, seq=6)
        assert (again.code, again.error["field"]) == ("BAD_VALUE", "jobId")
        stored = [item["value"]["id"] for item in other.read_all() if item["value"]["id"] != "e1"]
        assert stored == ["e2", "e3", "e4", "e5", "e7"]


def test_a_large_value_that_is_sent_again_is_stored_once(daemon: RunningDaemon) -> None:
    """By a client that lost patience while it was checked."""
    name = session()
    with Raw(daemon.endpoint) as raw, Raw(daemon.endpoint) as again:
        with halted_checker(daemon, raw):
            raw.send("storeEvent", event("once", text=LARGE), session=name, seq=1)
            again.send("storeEvent", event("once", text=LARGE), session=name, seq=1)
            assert again.ask("ping").header["ok"]
        assert raw.receive().position == again.receive().position == 2


def test_a_stop_refuses_what_is_not_checked_yet(daemon: RunningDaemon) -> None:
    """The client sends it again to the next daemon; no process is left."""
    with Raw(daemon.endpoint) as raw, halted_checker(daemon, raw):
        raw.send("storeEvent", event("late", text=LARGE))
        assert raw.ask("ping").header["ok"]
        (pid,) = checkers(daemon)
        daemon.stop()
        assert raw.receive().code == "STOPPING"
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "the process ends with the daemon")


@pytest.mark.parametrize("levels", [900, 5000])
def test_a_large_value_that_is_too_deep_is_refused_like_a_small_one(
    daemon: RunningDaemon, levels: int
) -> None:
    """Counted by us, on every Python, wherever it is checked."""
    deep = b',"x":' + b"[" * levels + b"]" * levels + b"}"
    with Raw(daemon.endpoint) as raw:
        for text in ("", LARGE):
            answer = raw.ask("storeEvent", json.dumps(event(text=text)).encode()[:-1] + deep)
            assert (answer.code, answer.error["message"]) == ("BAD_JSON", "the event is nested too deeply")
