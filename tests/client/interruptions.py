"""Interrupts a client's calls at chosen steps: a line in its modules, or one operation of the interpreter."""

import concurrent.futures
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import perstack_storage
from perstack_storage import Client, default_client

_PACKAGE = os.path.dirname(perstack_storage.__file__) + os.sep
# What our futures run of the standard library: an exception may come there as well.
_LIBRARY = (concurrent.futures.Future.result.__code__.co_filename, str(threading.__file__))
_NUMBERS = itertools.count()
JOB, RUN = "job-1", "run-1"


class Stop(BaseException):
    """As KeyboardInterrupt."""


def event(**more: Any) -> dict[str, Any]:
    """Returns an event like no other, of this process or another one."""
    number = next(_NUMBERS)
    return {
        "id": f"e{os.getpid()}-{number}",
        "type": "callTools",
        "expertKey": "@a/w@1.0.0",
        "timestamp": 1795406152251 + number,
        "jobId": JOB,
        "runId": RUN,
        "stepNumber": number,
        **more,
    }


class Steps:
    """Counts the steps of a call, and does something at one of them."""

    def __init__(
        self, at: float, action: Callable[[], object], *, opcodes: bool = False, within: str = ""
    ) -> None:
        """With `within`, only those in the module of that name count."""
        self.seen = 0
        self._within = within
        self._at = at
        self._action = action
        self._opcodes = opcodes

    def _trace(self, frame: FrameType, what: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith((_PACKAGE, *_LIBRARY)):
            return None
        frame.f_trace_opcodes = self._opcodes
        if not frame.f_code.co_filename.endswith(self._within):
            return self._trace
        if what == ("opcode" if self._opcodes else "line"):
            self.seen += 1
            if self.seen == self._at:
                self._action()
        return self._trace

    def run(self, call: Callable[[], object]) -> object:
        """Makes the call, whose steps are counted."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            return call()
        finally:
            sys.settrace(before)


def stop() -> None:
    """Raises what a signal handler may raise."""
    raise Stop


class Trial:
    """A client in use: some stores are outstanding, some were acknowledged."""

    def __init__(self, endpoint: str, *, used: bool = True) -> None:
        self.client = Client(endpoint, timeout_s=60)
        self.endpoint = endpoint
        self.acknowledged: list[str] = []
        self.futures: list[Any] = []
        if used:
            self.store()
            self.futures += [self.client.store_event_nowait(event()) for _ in range(3)]

    def store(self) -> int:
        """A store that is waited for."""
        made = event()
        position = self.client.store_event(made)
        self.acknowledged.append(made["id"])
        return position

    def store_large(self) -> int:
        """A store that is larger than a batch."""
        made = event(text="x" * 400_000)
        position = self.client.store_event(made)
        self.acknowledged.append(made["id"])
        return position

    def nowait(self) -> object:
        """A store that is not waited for."""
        made = event()
        future = self.client.store_event_nowait(made)
        self.futures.append(future)
        return future

    def flush(self) -> None:
        """Waits for what is outstanding."""
        self.client.flush()

    def pipeline(self) -> list[int | None]:
        """Stores in a pipeline."""
        with self.client.pipeline() as pipeline:
            made = [event() for _ in range(3)]
            for one in made:
                pipeline.store_event(one)
        self.acknowledged += [one["id"] for one in made]
        return pipeline.positions

    def read(self) -> list[Any]:
        """A listing that comes in parts."""
        return self.client.get_event_contents(JOB, "large")

    def follow(self) -> object:
        """The first record."""
        return next(iter(self.client.follow(idle_s=0)))

    def ping(self) -> float:
        """A request that is answered at once."""
        return self.client.ping()

    def close(self) -> None:
        """The end."""
        self.client.close()

    def default(self) -> int:
        """A store through the module's own client; PERSTACK_STORED_ENDPOINT names the daemon."""
        return default_client().store_event(event())

    def check(self, *, closed: bool = False) -> None:
        """Everything but the interrupted call is as if nothing had happened."""
        if closed:
            self.client.close()
            return
        assert self.store() > 0
        self.client.flush()
        for future in self.futures:
            assert future.result(0) > 0
        with self.client.pipeline() as pipeline:
            pipeline.store_event(event())
        assert len(pipeline.positions) == 1
        assert self.client.ping() < 20
        self.client.close()


def stored(endpoint: str) -> Iterator[str]:
    """Ids of all events in the run."""
    with Client(endpoint) as client:
        yield from (one["id"] for one in client.get_event_contents(JOB, RUN))


def prepare(endpoint: str) -> None:
    """Stores what `Trial.read` reads."""
    with Client(endpoint) as client, client.pipeline() as pipeline:
        for _ in range(4):
            pipeline.store_event(event(runId="large", text="x" * 300_000))


def interrupt(trial: Trial, name: str, at: float, *, opcodes: bool = False, within: str = "") -> int:
    """Raises in a call of a trial at a step of it; returns how many steps there were up to then."""
    steps = Steps(at, stop, opcodes=opcodes, within=within)
    with suppress(Stop):
        steps.run(getattr(trial, name))
    return steps.seen
