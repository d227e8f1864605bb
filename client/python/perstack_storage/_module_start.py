"""Imported first: begun by `python -m`, our commands take no module from the working directory.

Python puts that folder before all others then, and a `queue.py` there would run as us. What Python itself
imports before this line (`runpy` and the like) can't be helped: the installed commands, or `python -P -m`,
have no such folder at all. A program that imports the client keeps its own folders.
"""

import os
import sys

_OURS = frozenset({"perstack_storage", "perstack_stored", "-mperstack_storage", "-mperstack_stored"})


def leave_working_directory() -> None:
    """Drop the working directory, if it is one of our own commands that `python -m` begins."""
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:
        return
    if sys.orig_argv[-len(sys.argv)] not in _OURS:
        return
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.path and os.path.realpath(sys.path[0]) != os.path.realpath(home):
        del sys.path[0]
