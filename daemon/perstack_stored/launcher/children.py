"""The children of `exec`. As process 1 of a container it inherits orphans as well."""

import os


class Children:
    """Waits for every child, its own or inherited, so that none stays as a zombie."""

    def __init__(self) -> None:
        self._ended: dict[int, int] = {}
        self._ours: set[int] = set()

    def add(self, pid: int) -> None:
        """Add a child whose status is needed."""
        self._ours.add(pid)

    def status_of(self, pid: int) -> int | None:
        """Status of a child that ended, as from `os.waitpid`; None while it runs. It is returned once."""
        self.reap()
        status = self._ended.pop(pid, None)
        if status is not None:
            self._ours.discard(pid)
        return status

    def reap(self) -> None:
        """Collect the status of all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._ours:
                self._ended[pid] = status
