"""Starts an interpreter that runs this program's code, whatever the working directory or environment hold.

`python -m` searches the working directory first, and that is often the agents' workspace: a
`queue.py` there would run as the daemon's user. So a child is isolated (`-I`: no working directory, no
PYTHON* variables, no per-user customization). It gets this process's import folders, because the
package may be installed where an isolated interpreter does not look (`pip install --user`, `--target`).
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import perstack_storage
import perstack_stored

from . import child_main

GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals that a terminal or a supervisor sends to the whole process group."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that calls `main()` of a module in an isolated interpreter."""
    return [
        sys.executable,
        "-I",
        *_options(),
        os.path.abspath(child_main.__file__),
        json.dumps(import_path()),
        module,
        *arguments,
    ]


def start(module: str, *arguments: str, pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a worker process. It begins with `GROUP_SIGNALS` blocked, and calls `ignore_group_signals`.

    Ctrl-C reaches the whole group. A worker must not die of it before it ignores it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603 - a module of this program
            command(module, *arguments), pass_fds=pass_fds, stdin=subprocess.DEVNULL
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_group_signals() -> None:
    """Ignore these signals in a worker: the server decides when it ends. Pending ones are dropped."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def import_path() -> list[str]:
    """Import folders for a child: those of this process, without the working directory.

    If this program's packages lie in the working directory, it comes last: other modules are
    found elsewhere first.
    """
    here = _real(os.curdir)
    kept = [entry for entry in sys.path if os.path.isabs(entry) and _real(entry) != here]
    homes = {
        _real(os.path.dirname(os.path.dirname(os.path.abspath(file))))
        for file in (perstack_stored.__file__, perstack_storage.__file__)
    }
    return list(dict.fromkeys(kept)) + ([here] if here in homes else [])


def install_command(requirement: str) -> str:
    """What a person types to install a package beside this program, which may have no pip of its own."""
    # `make install` and the Debian package leave it out.
    has_pip = importlib.util.find_spec("pip") is not None
    pip = f"{sys.executable} -m pip" if has_pip else f"python3 -m pip --python {sys.executable}"
    return f"{pip} install '{requirement}'"


def _real(path: str) -> str:
    return os.path.realpath(path)


def _options() -> list[str]:
    """Options of this interpreter that a child would have taken from the environment."""
    options = ["-X", f"utf8={int(sys.flags.utf8_mode)}"]
    if sys.flags.dont_write_bytecode:
        options.append("-B")
    if sys.pycache_prefix is not None:
        options += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return options
