"""The daemon beside a command of `exec`: started or joined, and stopped by the last user."""

import os
import signal
import sys
import time
from collections.abc import Callable

from perstack_storage import Client, StorageError
from perstack_stored.datadir.filesystem import FILE_MODE
from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.datadir.lock import Holder, Started, holder_of, identity_of, is_same
from perstack_stored.errors import BaseHeldError, ConfigError
from perstack_stored.process import interpreter

from .children import Children
from .users import LOG_NAME, LauncherLock

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 0.5
_STOP_SECONDS = 30.0

Say = Callable[[str], None]


class SignalledError(Exception):
    """A signal of `FORWARDED` arrived during the wait for the daemon."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class CompanionDaemon:
    """The daemon of a base. `FORWARDED` must be blocked."""

    def __init__(
        self, base: str, stored: int, endpoint: str, drain_seconds: float, say: Say, children: Children
    ) -> None:
        self._children = children
        self._base = base
        self._stored = stored
        self._endpoint = endpoint
        self._drain_seconds = drain_seconds
        self._say = say
        self._users = LauncherLock(stored)
        self._started: int | None = None  # process id of the child, until its status is collected
        self._is_new = False  # the daemon started here serves the base, or did
        self._status = 0

    # --- before the command ------------------------------------------------------------------------

    def enter(self) -> str:
        """Wait until a daemon serves the base; return its endpoint.

        Raises:
            ConfigError: it does not start.
            BaseHeldError: an offline tool holds the base.
            SignalledError: a signal ends the wait.
        """
        while not self._users.join():
            _pause()
        while True:
            holder = holder_of(self._stored)
            if holder is None and self._started is None:
                self._start()
            elif holder is not None and self._serves(holder):
                return self._endpoint
            self._watch_start()
            _pause()

    def _start(self) -> None:
        # Its log goes to a file: it may outlive this process, and a reader of the output waits for its end.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(LOG_NAME, flags, FILE_MODE, dir_fd=self._stored)
        arguments = ["serve", "--base-path", self._base, "--bind", self._endpoint, "--log-format", "console"]
        try:
            self._started = os.posix_spawn(
                sys.executable,
                interpreter.command("perstack_stored.__main__", *arguments),
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,  # a key on the terminal is for the command
                setsigmask=(),
                setsigdef=IGNORED_BY_PYTHON,
            )
        finally:
            os.close(log)
        self._children.add(self._started)

    def _watch_start(self) -> None:
        """Check a daemon that ended during the start: it is no error if another one was faster."""
        if self._started is None or not self._reap():
            return
        holder = holder_of(self._stored)
        if holder is None:
            path = os.path.join(self._base, STORED_NAME, LOG_NAME)
            with open(path, encoding="utf-8", errors="replace") as log:
                lines = log.read().split("\n")
            last_line = next((line for line in reversed(lines) if line.strip()), "it said nothing")
            raise ConfigError(f"the daemon did not start: {last_line}; see {path}")

    def _serves(self, holder: Holder) -> bool:
        if not holder.is_daemon:
            raise BaseHeldError(f"the base is held by the {holder.role} with process id {holder.pid}")
        if not holder.endpoint:
            return False
        try:
            with Client(holder.endpoint, timeout_s=_ANSWER_SECONDS) as client:
                base = client.hello()["base"]
                # The command may read the tree; a daemon of an earlier version serves no sooner.
                is_whole = client.stats()["tree"].get("whole", True)
        except StorageError:
            return False
        if base != self._base:
            raise ConfigError(f"{holder.endpoint} serves another base: {base}")
        if not is_whole:
            return False
        self._endpoint = holder.endpoint
        self._note(holder)
        return True

    def _note(self, holder: Holder | None) -> None:
        """Record that `exec` started the daemon."""
        if holder is not None and self._is_ours(holder):
            self._is_new = True
            self._users.started(holder.started)

    def _is_ours(self, holder: Holder) -> bool:
        """Whether the holder is the child started here: a pid may be of another PID namespace."""
        return holder.pid == self._started and holder.process == identity_of(holder.pid)

    # --- after the command -------------------------------------------------------------------------

    def leave(self) -> None:
        """Stop the daemon, if an `exec` started it and it has no other user."""
        holder = holder_of(self._stored)
        if self._started is not None:
            self._look_after(holder)
        started = self._users.last()
        if started is not None:
            if holder is not None and holder.started == started:
                self._drain(holder)
                self._end(started)
                self._await_end()
            self._users.forget()
        self._users.leave()
        if self._is_new and self._status:
            how = os.waitstatus_to_exitcode(self._status)
            self._say(f"the daemon failed, with status {how}; see {self._base}/{STORED_NAME}/{LOG_NAME}")

    def _look_after(self, holder: Holder | None) -> None:
        """Handle a daemon that ended early, or does not hold the base yet."""
        assert self._started is not None
        if self._reap():
            return
        if holder is not None and self._is_ours(holder):
            self._note(holder)
        else:
            os.kill(self._started, signal.SIGTERM)

    def _drain(self, holder: Holder) -> None:
        """Wait until the tree has caught up, so that programs after the command find it complete."""
        deadline = time.monotonic() + self._drain_seconds
        try:
            with Client(holder.endpoint, timeout_s=_ANSWER_SECONDS) as client:
                while True:
                    stats = client.stats()
                    lag = stats["position"] - (stats["tree"]["position"] or 0)
                    if not lag:
                        return
                    if stats["tree"]["fault"] or time.monotonic() > deadline:
                        self._say(f"the tree lags by {lag} records; the next start goes on with it")
                        return
                    _pause()
        except (SignalledError, StorageError, IndexError):
            return  # a signal came, or it is ending already

    def _end(self, started: Started) -> None:
        """Stop the daemon: that process, and no later one with its pid."""
        try:
            fd = os.pidfd_open(started.pid)
        except ProcessLookupError:
            return  # it has ended
        try:
            # From here on the descriptor identifies the process, even if its pid is reused.
            if is_same(started.pid, started.process):
                signal.pidfd_send_signal(fd, signal.SIGTERM)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)

    def _await_end(self) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while holder_of(self._stored) is not None:
            if time.monotonic() > deadline:
                self._say(f"the daemon has not stopped within {_STOP_SECONDS:g} s")
                return
            self._reap()
            time.sleep(_POLL_SECONDS)
        while not self._reap():
            time.sleep(_POLL_SECONDS)

    def _reap(self) -> bool:
        """Whether the child has ended."""
        if self._started is not None:
            status = self._children.status_of(self._started)
            if status is not None:
                self._started, self._status = None, status
        return self._started is None


def _pause() -> None:
    arrived = signal.sigtimedwait(FORWARDED, _POLL_SECONDS)
    if arrived is not None:
        raise SignalledError(arrived.si_signo)
