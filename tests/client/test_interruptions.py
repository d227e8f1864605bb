"""An exception, or a call of a signal handler, in the middle of a call of the synchronous client.

INTERRUPTIONS=all tries each line, and each operation of the interpreter, instead of a sample.
INTERRUPTIONS_SEED draws another sample.
"""

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from perstack_storage import ClosedError, close_default_client
from tests.client import interruptions
from tests.client.interruptions import Steps, Trial, event, interrupt
from tests.support import RunningDaemon, running_daemon

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


def _try_interrupting(daemon: RunningDaemon, name: str, *, opcodes: bool = False, used: bool = True) -> None:
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


def test_the_default_client_works_on_after_an_exception_in_its_first_call(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock around its making is left held."""
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", daemon.endpoint)
    trial = Trial(daemon.endpoint)
    close_default_client()
    count = interrupt(trial, "default", float("inf"))
    for at in _steps(count, "default"):
        close_default_client()
        interrupt(trial, "default", at)
        assert trial.default() > 0
    close_default_client()
    trial.client.close()


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

    return call


@pytest.mark.parametrize("handler", ["nowait", "nowait and flush", "store", "pipeline", "read"])
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
