"""Keeps asyncio from being imported: structlog imports it, and nothing in the daemon uses it.

With ssl and the rest it costs each process a fifth of its CPU time at the start, and 3 MB.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_NAME = "asyncio"


class _Late(ModuleType):
    """Stands in `sys.modules` until somebody asks it for a name; then asyncio is imported."""

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith("__") and name != "__path__"
        ):  # of the import system, and of those who look at modules
            raise AttributeError(name)
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        found = getattr(importlib.import_module(_NAME), name)
        setattr(self, name, found)  # the next time it is found at once
        return found


def import_asyncio_late() -> None:
    """Let `import asyncio` do nothing until a name of it is used. Called before structlog is imported."""
    if _NAME not in sys.modules:
        sys.modules[_NAME] = _Late(_NAME)
