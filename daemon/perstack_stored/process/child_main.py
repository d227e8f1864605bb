"""First code of a child process; `interpreter` starts it by this file's path, isolated.

Arguments: the folders to import from, as JSON; the module whose `main` is called; the arguments of that.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module


def main() -> None:
    """Take the folders in, and go on in the module."""
    folders, module = sys.argv[1:3]
    sys.argv[:] = [module, *sys.argv[3:]]
    sys.path[:] = merged(sys.path, json.loads(folders))
    import_module(module).main()


def merged(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """The interpreter's own library first: no folder that was given can shadow it."""
    library = os.path.dirname(os.__file__)
    first = [
        entry
        for entry in own
        if entry in {library, os.path.join(library, "lib-dynload")} or entry.endswith(".zip")
    ]
    return list(dict.fromkeys([*first, *given, *own]))


if __name__ == "__main__":
    main()
