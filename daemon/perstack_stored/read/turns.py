"""Work for one thread, taken in turn by client. Any thread may add to it."""

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator

Task = Iterator[None]
"""Work in steps: after each step another client may take its turn."""


class Turns:
    """A queue for each client. Each client's own work keeps its order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: OrderedDict[str, deque[Task]] = OrderedDict()  # by client, in order of turns
        self._ready: queue.SimpleQueue[bool] = queue.SimpleQueue()  # one entry a task; False ends the thread

    def put(self, client: str, task: Task) -> None:
        """Add work to the end of a client's queue."""
        with self._lock:
            self._tasks.setdefault(client, deque()).append(task)
        self._ready.put(True)

    def put_back(self, client: str, task: Task) -> None:
        """Put work back before the client's other work; other clients go first."""
        with self._lock:
            self._tasks.setdefault(client, deque()).appendleft(task)
            self._tasks.move_to_end(client)
        self._ready.put(True)

    def take(self) -> tuple[str, Task] | None:
        """Wait for work; None at the end."""
        if not self._ready.get():
            return None
        with self._lock:
            client, tasks = next(iter(self._tasks.items()))
            task = tasks.popleft()
            if tasks:
                self._tasks.move_to_end(client)
            else:
                del self._tasks[client]
        return client, task

    def others_wait(self, client: str) -> bool:
        """Whether another client has work here."""
        tasks = self._tasks
        return len(tasks) > (client in tasks)

    def end(self) -> None:
        """Make `take` return None once the current work is taken."""
        self._ready.put(False)
