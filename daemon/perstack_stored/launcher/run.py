"""`exec`: runs a command with a daemon beside it, started before the command and stopped after it."""

import os
import signal
from collections.abc import Sequence

from perstack_storage.protocol import BASE_VARIABLE, ENDPOINT_VARIABLE
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import STORED_NAME, not_yours, set_up

from .children import Children
from .daemon_process import FORWARDED, IGNORED_BY_PYTHON, CompanionDaemon, Say, SignalledError

NOT_EXECUTABLE_STATUS = 126
NOT_FOUND_STATUS = 127
SIGNALLED_STATUS = 128
_FROM_KERNEL = 0x80  # SI_KERNEL: a key on the terminal, which signals the command as well


def execute(
    base: str, endpoint: str, command: Sequence[str], settings: Settings, *, drain_seconds: float, say: Say
) -> int:
    """Run a command beside a daemon.

    Args:
        base: the base, absolute.
        endpoint: where a new daemon serves.
        command: the program, looked for in PATH, and its arguments.
        settings: the modes, if the base is new.
        drain_seconds: how long to wait for the tree before the daemon stops.
        say: takes sentences for people.

    Returns:
        The exit status of the command; 128 and the number of the signal that ended it.

    Raises:
        ConfigError: the daemon does not start; the message has its last log line.
        BaseHeldError: an offline tool holds the base.
    """
    # Signals are handled at safe points only, so that no step is left half done.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
    try:
        set_up(base, settings.folder_mode)
        stored = os.open(os.path.join(base, STORED_NAME), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        raise not_yours(base, error) from error
    children = Children()
    beside = CompanionDaemon(base, stored, endpoint, drain_seconds, say, children)
    try:
        return _run(command, {BASE_VARIABLE: base, ENDPOINT_VARIABLE: beside.enter()}, say, children)
    except SignalledError as error:
        return SIGNALLED_STATUS + error.number
    finally:
        beside.leave()
        os.close(stored)


def _run(command: Sequence[str], variables: dict[str, str], say: Say, children: Children) -> int:
    name, environment = command[0], {**os.environ, **variables}
    try:
        # Python ignores SIGPIPE; the command must not inherit that, nor the blocked signals.
        pid = os.posix_spawnp(name, list(command), environment, setsigmask=(), setsigdef=IGNORED_BY_PYTHON)
    except OSError as error:
        say(f"{name}: {error.strerror}")
        return NOT_FOUND_STATUS if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE_STATUS
    children.add(pid)
    while True:
        status = children.status_of(pid)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else SIGNALLED_STATUS - code
        arrived = signal.sigwaitinfo({*FORWARDED, signal.SIGCHLD})
        if arrived.si_signo != signal.SIGCHLD and arrived.si_code != _FROM_KERNEL:
            os.kill(pid, arrived.si_signo)
