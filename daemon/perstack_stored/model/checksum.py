"""CRC-32C by the extension module of the package `crc32c`.

On import the package looks up its version in the metadata of all installed packages, which takes a
fifth of a worker's start. So the extension is loaded alone.
"""

import importlib.util
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

__all__ = ["crc32c"]


def _extension() -> Any:
    package = importlib.util.find_spec("crc32c")
    spec = None if package is None else PathFinder.find_spec("_crc32c", package.submodule_search_locations)
    if spec is None or spec.loader is None:  # another layout than expected: the slow way, or its error
        return importlib.import_module("crc32c")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from crc32c import crc32c
else:
    crc32c = _extension().crc32c
