"""Threads and processes of a simulated machine: exactly one of them runs at a time, and a seed says which.

Each task is a real thread that runs until it makes a system call or has to wait, and then hands back.
"""

import math
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class DiedError(BaseException):
    """The simulated machine is no more."""


class BrokenError(BaseException):
    """A crash on the side broke a promise: no handler of the history that goes on may take it for its own."""


def _never() -> bool:
    return False


class Task:
    """One thread of the machine. `waits` says that it has nothing to do until somebody has done something."""

    def __init__(self, name: str, target: Callable[[], None]) -> None:
        self.name = name
        self.budget = 0
        self.waits = False
        self.done = False
        self.killed = False
        self.strict = False  # an error in it is not looked for by anybody else
        self.is_idle: Callable[[], bool] = _never  # whether what it waits for has not come yet
        self.error: BaseException | None = None
        self._target = target
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def run(self, calls: int) -> None:
        """Let it run for `calls` system calls, or until it waits or ends."""
        if self.done:
            return
        self.budget = calls
        if self._thread is None:
            if self.killed:
                self.done = True
                return
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()

    def pause(self, *, waits: bool) -> None:
        """Called by the task itself: hand back, unless it may go on."""
        if not self.killed:
            self.budget -= 1
            if self.budget >= 0 and not waits:
                return
            self.waits = waits
            self._back.release()
            self._go.acquire()
        if self.killed:
            raise DiedError(self.name)

    def kill(self) -> None:
        """End it at the call that it stands at."""
        self.killed = True
        self.run(0)

    def _run(self) -> None:
        try:
            self._target()
        except DiedError:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the thread that runs the machine
            self.error = error
        finally:
            self.done = True
            self._back.release()


class Scheduler:
    """All tasks of a machine. The thread that made it is the main task, which is never paused."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.current: Task | None = None

    def spawn(self, name: str, target: Callable[[], None]) -> Task:
        """A new task; it begins when it is run for the first time."""
        task = Task(name, target)
        self.tasks.append(task)
        return task

    def run(self, task: Task, calls: int) -> None:
        """Let a task run for a while. Only the main task may do so."""
        assert self.current is None
        if task.is_idle():
            return
        self.current = task
        try:
            task.run(calls)
        finally:
            self.current = None
        if task.done:
            self.tasks.remove(task)
            if task.error is not None and (
                task.strict or isinstance(task.error, BrokenError | AssertionError)
            ):
                raise task.error

    def pause(self, *, waits: bool = False) -> None:
        """The running task makes a call, or has to wait."""
        if self.current is not None:
            self.current.pause(waits=waits)

    def pause_until(self, has_come: Callable[[], bool]) -> None:
        """The running task waits for something; until it has come, nobody runs the task."""
        task = self.current
        assert task is not None
        task.is_idle = lambda: not has_come()
        while task.is_idle():
            task.pause(waits=True)
        task.is_idle = _never

    def kill(self, task: Task) -> None:
        """End a task at the call that it stands at."""
        current, self.current = self.current, task
        try:
            if not task.done:
                task.kill()
        finally:
            self.current = current
        if task in self.tasks:
            self.tasks.remove(task)

    def kill_all(self) -> None:
        """End all tasks."""
        for task in list(self.tasks):
            self.kill(task)


class FakeThread:
    """What the daemon's threads are in the simulation: stands in for `threading.Thread`."""

    scheduler: Callable[[], Scheduler]

    def __init__(self, *, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._name = name
        self._target = target
        self._task: Task | None = None

    def start(self) -> None:
        self._task = FakeThread.scheduler().spawn(self._name, self._target)
        self._task.strict = True

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done

    def join(self) -> None:
        scheduler = FakeThread.scheduler()
        while self._task is not None and not self._task.done:
            if scheduler.current is None:
                scheduler.run(self._task, 1000)
            else:
                scheduler.pause(waits=True)


class FakeQueue:
    """Stands in for `queue.SimpleQueue`: who waits lets others run."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self, block: bool = True) -> Any:
        scheduler = FakeThread.scheduler()
        while not self._items:
            if not block:
                raise queue.Empty
            if scheduler.current is None:
                for task in list(scheduler.tasks):
                    if not self._items:
                        scheduler.run(task, 4)
            else:
                scheduler.pause_until(lambda: bool(self._items))
        return self._items.popleft()

    def get_nowait(self) -> Any:
        return self.get(block=False)


class FakeCondition:
    """Stands in for `threading.Condition`: as one task runs at a time, there is nothing to lock."""

    now: Callable[[], float]

    def __init__(self) -> None:
        self._is_notified = False

    def __enter__(self) -> None:
        """Nobody else runs."""

    def __exit__(self, *_: object) -> None:
        """Nobody else has run, unless this one has waited."""

    def wait(self, timeout: float | None = None) -> None:
        """Let others run until somebody notifies, or the time is over."""
        until = math.inf if timeout is None else FakeCondition.now() + timeout
        self._is_notified = False
        FakeThread.scheduler().pause_until(lambda: self._is_notified or FakeCondition.now() >= until)

    def notify(self) -> None:
        """Let who waits go on."""
        self._is_notified = True
