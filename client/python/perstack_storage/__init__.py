"""The Python client of perstack-stored; never imports the daemon."""

from perstack_storage import _module_start

_module_start.leave_working_directory()

# isort: split
# ruff: noqa: E402, F403 - the line above comes before what could be found in the working directory
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perstack_storage._exports import *
    from perstack_storage._exports import __all__ as __all__

# Imported when they are first used: asyncio takes longer to import than all the rest, which many short-lived
# agents don't use, and the daemon's processes use `perstack_storage.protocol` alone.
_ASYNC = {"AsyncClient": "_async.client", "AsyncPipeline": "_async.pipeline"}


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name not in {"__all__", "__version__"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_ASYNC.get(name, '_exports')}")
    try:
        found = globals()[name] = getattr(home, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module(f"{__name__}._exports").__all__})
