"""An exception, or a call of a signal handler, in the middle of a call of the synchronous client.

INTERRUPTIONS=all tries each line, and each operation of the interpreter, instead of a sample.
INTERRUPTIONS_SEED draws another sample.
"""

import concurrent.futures
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client, ClosedError, DaemonUnavailable, close_default_client
from tests.client import interruptions
from tests.client.interruptions import Steps, Trial, event, interrupt
from tests.helpers.daemon import RunningDaemon, running_daemon

ROOT = Path(__file__).parents[2]
ALL = os.environ.get("INTERRUPTIONS") == "all"
SEED = int(os.environ.get("INTERRUPTIONS_SEED", "1"))
SAMPLE = 12
CALLS = ["store", "store_large", "nowait", "flush", "pipeline", "read", "follow", "ping", "close"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("interrupted") / "perstack") as daemon:
        interruptions.prepare(daemon.endpoint)
        yield daemon


def _steps(count: int, name: str) -> list[int]:
    """Steps at which to interrupt: all, or a sample."""
    if ALL:
        return list(range(1, count + 1))
    drawn = random.Random(f"{SEED} {name}").sample(range(1, count + 1), min(count, SAMPLE))
    return sorted(drawn)


def _in_a_thread(trials: Callable[[], None]) -> None:
    """Makes trials in a thread that ends: CPython 3.11 may keep an exception as handled for ever there."""
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        other.submit(trials).result()


def _try_interrupting(daemon: RunningDaemon, name: str, *, opcodes: bool = False, used: bool = True) -> None:
    _in_a_thread(lambda: _interrupt_everywhere(daemon, name, opcodes=opcodes, used=used))


def _interrupt_everywhere(daemon: RunningDaemon, name: str, *, opcodes: bool, used: bool) -> None:
    trial = Trial(daemon.endpoint, used=used)
    count = interrupt(trial, name, float("inf"), opcodes=opcodes)
    trial.check(closed=name == "close")
    acknowledged = trial.acknowledged
    for at in _steps(count, name):
        trial = Trial(daemon.endpoint, used=used)
        interrupt(trial, name, at, opcodes=opcodes)
        trial.check(closed=name == "close")
        acknowledged += trial.acknowledged
    found = list(interruptions.stored(daemon.endpoint))
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)


@pytest.mark.parametrize("name", CALLS)
def test_a_client_works_on_after_an_exception_at_any_line_of_a_call(daemon: RunningDaemon, name: str) -> None:
    """Only the interrupted call's outcome is unknown: what was queued settles, and `close` returns."""
    _try_interrupting(daemon, name)


@pytest.mark.parametrize("name", ["store", "nowait", "pipeline", "flush"])
def test_a_client_works_on_after_an_exception_at_any_operation_of_a_call(
    daemon: RunningDaemon, name: str
) -> None:
    """The same with a step that is as small as the interpreter has it."""
    _try_interrupting(daemon, name, opcodes=True)


@pytest.mark.parametrize("name", ["store", "nowait", "read"])
def test_a_client_works_on_after_an_exception_in_its_first_call(daemon: RunningDaemon, name: str) -> None:
    """The connection, the pump and all else is made in that call."""
    _try_interrupting(daemon, name, used=False)


def test_outcomes_reach_their_futures_without_another_call(daemon: RunningDaemon) -> None:
    """The call that took the outcomes is interrupted as it hands them out."""

    def trials() -> None:
        for at in range(1, 61):  # more than there are, if the pump is quicker
            trial = Trial(daemon.endpoint)
            interrupt(trial, "store", at, within="delivery.py")
            assert all(future.result(60) > 0 for future in trial.futures)
            trial.check()

    _in_a_thread(trials)


@pytest.mark.parametrize("name", ["store", "flush", "read", "pipeline"])
def test_without_a_daemon_all_fails_at_once_also_after_an_exception(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Where there is no socket; what is outstanding fails without another call."""
    monkeypatch.delenv("PERSTACK_STORED_ENDPOINT", raising=False)

    def trial(at: float) -> int:
        client = Client(base_path=tmp_path / "nobody", timeout_s=60, on_error=lambda error: None)
        futures = [client.store_event_nowait(event()) for _ in range(2)]
        calls: dict[str, Callable[[], object]] = {
            "store": lambda: client.store_event(event()),
            "flush": client.flush,
            "read": client.get_all_jobs,
            "pipeline": lambda: _fill(client),
        }
        steps = Steps(at, interruptions.stop)
        with suppress(interruptions.Stop, DaemonUnavailable):
            steps.run(calls[name])
        assert all(isinstance(future.exception(60), DaemonUnavailable) for future in futures)
        with pytest.raises(DaemonUnavailable):
            client.store_event(event())
        client.close()
        return steps.seen

    def trials() -> None:
        for at in _steps(trial(float("inf")), name):
            trial(at)

    _in_a_thread(trials)


def _fill(client: Client) -> None:
    with client.pipeline() as pipeline:
        for _ in range(3):
            pipeline.store_event(event())


def test_the_default_client_works_on_after_an_exception_in_its_first_call(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock around its making is left held."""
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", daemon.endpoint)
    trial = Trial(daemon.endpoint)
    _in_a_thread(lambda: _interrupt_the_default_client(trial))
    trial.client.close()


def _interrupt_the_default_client(trial: Trial) -> None:
    close_default_client()
    count = interrupt(trial, "default", float("inf"))
    for at in _steps(count, "default"):
        close_default_client()
        interrupt(trial, "default", at)
        assert trial.default() > 0
    close_default_client()


def _handlers(trial: Trial, handler: str) -> Any:
    client = trial.client

    def call() -> None:
        if handler == "nowait":
            trial.nowait()
        elif handler == "nowait and flush":
            future = client.store_event_nowait(event())
            client.flush()
            assert future.result(0) > 0
        elif handler == "store":
            trial.store()
        elif handler == "pipeline":
            trial.pipeline()
        elif handler == "read":
            assert client.ping() > 0
        elif handler == "listing":
            future = client.store_event_nowait(made := event())
            found = client.get_event_contents(interruptions.JOB, interruptions.RUN)
            assert made["id"] in {one["id"] for one in found}
            trial.futures.append(future)

    return call


@pytest.mark.parametrize("handler", ["nowait", "nowait and flush", "store", "pipeline", "read", "listing"])
@pytest.mark.parametrize("name", ["store", "nowait", "flush", "pipeline", "read"])
def test_a_signal_handler_may_call_the_client_that_it_interrupted(
    daemon: RunningDaemon, name: str, handler: str
) -> None:
    """Both calls have their outcomes, at whatever line the handler came; nothing is lost or doubled."""
    trial = Trial(daemon.endpoint)
    count = interrupt(trial, name, float("inf"))
    trial.check()
    acknowledged = trial.acknowledged
    for at in _steps(count, name + handler)[:: 1 if ALL else 3]:
        trial = Trial(daemon.endpoint)
        Steps(at, _handlers(trial, handler)).run(getattr(trial, name))
        trial.check()
        acknowledged += trial.acknowledged
    found = list(interruptions.stored(daemon.endpoint))
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)


@pytest.mark.parametrize("name", ["store", "nowait", "flush", "read"])
def test_a_signal_handler_may_close_the_client_that_it_interrupted(daemon: RunningDaemon, name: str) -> None:
    """`close` returns; the call below ends with ClosedError, or had its outcome already."""
    trial = Trial(daemon.endpoint)
    count = interrupt(trial, name, float("inf"))
    trial.check()
    for at in _steps(count, name):
        trial = Trial(daemon.endpoint)
        with suppress(ClosedError):
            Steps(at, trial.client.close).run(getattr(trial, name))
        trial.client.close()


STORM = """
import signal, sys, time
from perstack_storage import Client
from tests.client.interruptions import event
client, futures = Client(sys.argv[1], timeout_s=30), []
signal.signal(signal.SIGALRM, lambda *_: futures.append(client.store_event_nowait(event())))
end = time.monotonic() + 1
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
while time.monotonic() < end:
    futures.append(client.store_event_nowait(event()))
signal.setitimer(signal.ITIMER_REAL, 0)
client.flush()
assert all(future.result(0) for future in futures)
client.close()
print("done")
"""


def test_stores_of_signal_handlers_are_queued_among_those_that_they_interrupt(daemon: RunningDaemon) -> None:
    """No store waits for the code below it, and each settles."""
    ran = subprocess.run(
        [sys.executable, "-c", STORM, daemon.endpoint],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("done\n", "")


LAST = """
import os, signal, sys
from perstack_storage import Client
from tests.client.interruptions import event
client, way, ending = Client(sys.argv[1], timeout_s=30), sys.argv[2], sys.argv[3]
def handler(*_):
    client.store_event_nowait({**event(), "id": sys.argv[4]})
    client.flush()
    if ending == "exit":
        sys.exit(0)
    client.close()
    os._exit(0)
client.store_event(event())
signal.signal(signal.SIGTERM, handler)
print("ready", flush=True)
while True:
    client.store_event(event()) if way == "store" else client.store_event_nowait(event())
"""


@pytest.mark.parametrize("ending", ["exit", "close"])
@pytest.mark.parametrize("way", ["store", "nowait"])
def test_the_last_event_of_a_program_that_is_terminated_is_kept(
    daemon: RunningDaemon, way: str, ending: str
) -> None:
    """Its handler stores and flushes, in the middle of whatever call of the same client."""
    for number in range(3):
        name = f"last-{way}-{ending}-{number}"
        program = [sys.executable, "-c", LAST, daemon.endpoint, way, ending, name]
        with subprocess.Popen(
            program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert list(interruptions.stored(daemon.endpoint)).count(name) == 1
