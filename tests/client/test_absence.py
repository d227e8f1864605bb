"""Without a daemon a call fails soon, where none can be listening, and a line at a terminal says so."""

import asyncio
import os
import pty
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import AsyncClient, Client, DaemonUnavailable, StorageError
from tests.client.behaviour.adapter import BlockingClient
from tests.client.behaviour.values import event
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.values import anything

SOON_S = 8.0
"""Far below the 30 s of a timeout; a busy machine has to start a thread in it."""
AT_ONCE_S = 0.9
"""Below the second in which a daemon may come back."""
KINDS: list[Any] = [Client, BlockingClient]


@pytest.fixture(autouse=True)
def _nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERSTACK_STORED_ENDPOINT", "PERSTACK_STORED_BASE", "PERSTACK_STORAGE_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """No daemon has ever served it."""
    return tmp_path / "perstack"


@pytest.fixture
def served_before(base: Path) -> Path:
    (base / ".stored").mkdir(parents=True)
    return base


def numbers(client: Client) -> list[int]:
    return [found["n"] for found in client.get_event_contents("j", "r")]  # type: ignore[typeddict-item]


def line_of(base: Path) -> str:
    return (
        f"perstack-storage: waiting for a daemon at ipc://{base}/.stored/stored.sock; "
        f"start one: perstack-stored serve --base-path {base}"
    )


# --- at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_daemon_has_ever_served_every_call_fails_at_once(
    kind: Callable[..., Client], base: Path
) -> None:
    with kind(base_path=base, on_error=lambda error: None) as client:
        for call in (
            lambda: client.store_event(event("j", 0)),
            client.get_all_jobs,
            client.ping,
            lambda: client.store_event_nowait(event("j", 1)).result(SOON_S),
            lambda: next(iter(client.follow())),
        ):
            start = time.monotonic()
            with pytest.raises(DaemonUnavailable) as caught:
                call()
            assert time.monotonic() - start < SOON_S
            assert str(caught.value) == (
                f"no daemon at ipc://{base}/.stored/stored.sock: there is no socket; "
                f"a daemon is started with: perstack-stored serve --base-path {base}"
            )


@pytest.mark.parametrize("kind", KINDS)
def test_stores_that_nobody_waits_for_fail_by_their_futures_and_by_flush(
    kind: Callable[..., Client], base: Path
) -> None:
    client = kind(base_path=base)
    start = time.monotonic()
    futures = [client.store_event_nowait(event("j", n)) for n in range(300)]
    with pytest.raises(DaemonUnavailable, match="there is no socket"):
        client.flush()
    assert time.monotonic() - start < SOON_S
    assert all(isinstance(future.exception(0), DaemonUnavailable) for future in futures)
    client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_fails_in_its_calls_or_when_it_is_flushed(kind: Callable[..., Client], base: Path) -> None:
    with kind(base_path=base) as client:
        pipeline = client.pipeline()

        def fill() -> None:
            with pipeline:
                for n in range(300):
                    pipeline.store_event(event("j", n))

        start = time.monotonic()
        with pytest.raises(DaemonUnavailable, match="there is no socket"):
            fill()
        assert time.monotonic() - start < SOON_S
        assert set(pipeline.positions) == {None}


def test_tasks_that_wait_fail_together_and_the_loop_rests_after_that(base: Path) -> None:
    async def main() -> int:
        async with AsyncClient(base_path=base) as client:
            calls = [client.store_event(event("j", n)) for n in range(200)]
            reads = [client.get_all_jobs() for _ in range(100)]
            outcomes = await asyncio.gather(*calls, *reads, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {DaemonUnavailable}
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            await asyncio.sleep(0.5)
            return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

    start = time.monotonic()
    assert asyncio.run(main()) < 30  # waits; a loop that tries again has hundreds
    assert time.monotonic() - start < SOON_S


# --- a daemon that may be starting again -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_daemon_has_served_before_it_has_a_second_to_come_back(
    kind: Callable[..., Client], served_before: Path
) -> None:
    with kind(base_path=served_before) as client:
        start = time.monotonic()
        with pytest.raises(DaemonUnavailable, match="there is no socket"):
            client.store_event(event("j", 0))
        assert 0.9 < time.monotonic() - start < SOON_S
        start = time.monotonic()
        with pytest.raises(DaemonUnavailable):
            client.get_all_jobs()
        assert time.monotonic() - start < AT_ONCE_S


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_that_comes_within_the_second_is_used_and_stores_keep_their_order(
    kind: Callable[..., Client], base: Path
) -> None:
    with running_daemon(base) as daemon, kind(base_path=base) as client:
        socket = daemon.base / ".stored/stored.sock"
        away = socket.rename(socket.with_name("away"))
        # A busy machine may take long for all of the stores.
        timer = threading.Timer(0.3, lambda: away.rename(socket))
        timer.start()
        futures = [client.store_event_nowait(event("j", n)) for n in range(300)]
        client.store_event(event("j", 300))
        assert [future.result(SOON_S) for future in futures] == list(range(1, 301))
        assert numbers(client) == list(range(301))
        timer.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_has_met_its_daemon_waits_for_it(kind: Callable[..., Client], base: Path) -> None:
    """A clean stop takes the socket away. Another thread's connection knows the daemon as well."""
    with running_daemon(base) as daemon, kind(base_path=base) as client:
        client.store_event(event("j", 0))
        daemon.stop()
        assert not (base / ".stored/stored.sock").exists()
        timer = threading.Timer(2.0, lambda: daemon.start(wait=False))
        timer.start()
        if kind is Client:
            other = threading.Thread(target=lambda: client.store_event(event("j", 1)))
            other.start()
            other.join()
        else:
            client.store_event(event("j", 1))
        timer.join()
        assert numbers(client) == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_whose_endpoint_is_named_waits_for_a_daemon_that_comes_up(
    kind: Callable[..., Client], base: Path
) -> None:
    daemon = RunningDaemon(base)
    timer = threading.Timer(1.5, lambda: daemon.start(wait=False))
    try:
        with kind(daemon.endpoint) as client:
            timer.start()
            assert client.store_event(event("j", 0)) == 1
    finally:
        timer.join()
        daemon.make_sure_it_ended()


# --- at a terminal -----------------------------------------------------------------------------------

WAITING = """
import sys, threading
from perstack_storage import Client, StorageError

def call(arguments):
    with Client(*arguments, timeout_s=1.8) as client:
        try:
            client.store_event({"n": 1})
        except StorageError as error:
            sys.stdout.write(f"{type(error).__name__} ")

arguments = sys.argv[1:]
others = [threading.Thread(target=call, args=(arguments,)) for _ in range(4)]
for other in others: other.start()
for other in others: other.join()
call(arguments)
"""


def run(text: str, *arguments: str, terminal: bool, **environment: str) -> tuple[list[str], list[str]]:
    """Runs a program, its standard error a terminal or a pipe; returns the lines of output and error."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, **environment},
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        output, said = process.stdout.read().decode(), b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:  # the other end of a terminal is closed
            pass
    os.close(ours)
    return output.split(), said.decode().splitlines()


@pytest.fixture
def left_behind(base: Path) -> Path:
    """A base whose daemon was killed: its socket is there, and nobody listens."""
    with running_daemon(base):
        pass
    return base


def test_a_wait_of_more_than_a_second_is_named_once_and_at_a_terminal_only(left_behind: Path) -> None:
    environment = {"PERSTACK_STORED_BASE": str(left_behind)}
    for terminal in (True, False):
        output, said = run(WAITING, terminal=terminal, **environment)
        assert output == ["DaemonUnavailable"] * 5
        assert said == ([line_of(left_behind)] if terminal else [])


@pytest.mark.parametrize("named", ["ipc", "tcp"])
def test_a_wait_for_an_endpoint_that_was_named_is_named_as_well(
    named: str, endpoint: str, free_endpoint: str
) -> None:
    where = endpoint if named == "ipc" else free_endpoint
    _, said = run(WAITING, where, terminal=True)
    assert said == [
        f"perstack-storage: waiting for a daemon at {where}; "
        f"start one: perstack-stored serve --bind {where} --base-path ..."
    ]


def test_a_program_that_has_put_something_in_the_place_of_standard_error_is_not_disturbed(
    left_behind: Path,
) -> None:
    text = f"import io, sys\nsys.stderr = io.StringIO()\n{WAITING}print(repr(sys.stderr.getvalue()))"
    output, said = run(text, terminal=True, PERSTACK_STORED_BASE=str(left_behind))
    assert (output[-1], said) == ("''", [])


def test_a_task_that_waits_is_named_too_and_a_short_wait_is_not(left_behind: Path) -> None:
    text = """
import asyncio, sys
from perstack_storage import AsyncClient, StorageError

async def main():
    async with AsyncClient(timeout_s=float(sys.argv[1])) as client:
        try:
            await client.get_all_jobs()
        except StorageError as error:
            print(type(error).__name__)

asyncio.run(main())
"""
    for seconds, wanted in (("1.8", [line_of(left_behind)]), ("0.5", [])):
        output, said = run(text, seconds, terminal=True, PERSTACK_STORED_BASE=str(left_behind))
        assert (output, said) == (["DaemonUnavailable"], wanted)


def test_a_task_that_does_something_else_waits_for_no_daemon(base: Path) -> None:
    """The client notices that the connection is gone, and tries again; nothing of it is worth a line."""
    text = """
import asyncio, os, signal, sys
from perstack_storage import AsyncClient

async def main():
    async with AsyncClient() as client:
        print(len(await client.get_all_jobs()))
        os.kill(int(sys.argv[1]), signal.SIGTERM)
        await asyncio.sleep(2)

asyncio.run(main())
"""
    with running_daemon(base) as daemon:
        output, said = run(text, str(daemon.pid), terminal=True, PERSTACK_STORED_BASE=str(base))
    assert (output, said) == (["0"], [])


def test_a_call_that_fails_at_once_tells_by_its_error_alone(base: Path) -> None:
    output, said = run(WAITING, terminal=True, PERSTACK_STORED_BASE=str(base))
    assert (output, said) == (["DaemonUnavailable"] * 5, [])


# --- a read sees the client's own stores ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_sees_what_was_stored_before_it_and_not_waited_for(
    kind: Callable[..., Client], base: Path
) -> None:
    with running_daemon(base) as daemon, kind(daemon.endpoint) as client:
        count = 0
        for _ in range(20):
            for _ in range(30):
                client.store_event_nowait(event("j", count))
                count += 1
            assert numbers(client) == list(range(count))
        pipeline = client.pipeline()
        with pipeline:
            for _ in range(30):
                pipeline.store_event(event("j", count))
                count += 1
            assert numbers(client) == list(range(count))


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_of_an_earlier_store_is_not_the_reads(kind: Callable[..., Client], base: Path) -> None:
    errors: list[StorageError] = []
    with running_daemon(base) as daemon, kind(daemon.endpoint, on_error=errors.append) as client:
        future = client.store_event_nowait(anything({"no": "event"}))
        assert numbers(client) == []
        assert future.exception(SOON_S) is not None
    assert len(errors) == 1


def test_a_task_sees_the_stores_that_other_tasks_called_for_before(base: Path) -> None:
    async def main(endpoint: str) -> None:
        async with AsyncClient(endpoint) as client:
            stores = [asyncio.ensure_future(client.store_event(event("j", n))) for n in range(200)]
            await asyncio.sleep(0)
            assert len(await client.get_event_contents("j", "r")) == 200
            await asyncio.gather(*stores)

    with running_daemon(base) as daemon:
        asyncio.run(main(daemon.endpoint))
