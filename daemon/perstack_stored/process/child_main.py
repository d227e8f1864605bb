"""First code of a child process; `interpreter` starts it by the path of this file, isolated.

Arguments: the import folders as JSON; the module whose `main` is called; the arguments of that.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module


def main() -> None:
    """Set the import path, and call the module's `main`."""
    folders, module = sys.argv[1:3]
    sys.argv[:] = [module, *sys.argv[3:]]
    sys.path[:] = merged(sys.path, json.loads(folders))
    import_module("perstack_stored.process.late_asyncio").import_asyncio_late()
    import_module(module).main()


def merged(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """The interpreter's own library first: no given folder can shadow it."""
    library = os.path.dirname(os.__file__)
    first = [
        entry
        for entry in own
        if entry in {library, os.path.join(library, "lib-dynload")} or entry.endswith(".zip")
    ]
    return list(dict.fromkeys([*first, *given, *own]))


if __name__ == "__main__":
    main()
