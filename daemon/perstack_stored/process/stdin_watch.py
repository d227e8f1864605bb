"""Stops this process when its standard input ends: a pipe from the process that started it.

The end of a pipe comes however the other process ends. PR_SET_PDEATHSIG would come when the thread ends that
started this process, and only Linux programs in C can ask for it before they start another.
"""

import contextlib
import os
import signal
import threading
import time

_STDIN = 0
_READ_BYTES = 4096


def stop_with_stdin(stop_seconds: float) -> None:
    """Watch standard input in a thread. At its end the process gets SIGTERM, and ends `stop_seconds` later.

    The journal survives that end as it survives any crash.
    """
    threading.Thread(target=_watch, args=(stop_seconds,), name="stdin", daemon=True).start()


def _watch(stop_seconds: float) -> None:
    with contextlib.suppress(OSError):  # closed, or it can't be read: that is an end, too
        while os.read(_STDIN, _READ_BYTES):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(stop_seconds)
    os._exit(1)
