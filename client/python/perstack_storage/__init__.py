"""The Python client of perstack-stored; never imports the daemon."""

from perstack_storage import _module_start

_module_start.leave_working_directory()

# isort: split
# ruff: noqa: E402, F403 - the line above comes before what could be found in the working directory
from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it: `typing` takes as long to import as Python takes to start
if TYPE_CHECKING:
    from typing import Any

    from perstack_storage._exports import *
    from perstack_storage._exports import __all__ as __all__

# Names are imported when they are first used: many agents are processes that end soon, and the daemon's
# processes use `perstack_storage.protocol` alone. These come without all the others.
_ALONE = {
    "AsyncAtomicBatch": "_async.atomic",
    "AsyncClient": "_async.client",
    "AsyncPipeline": "_async.pipeline",
    "AsyncResumedJob": "_async.resumed",
    "Client": "_sync.client",
    "StorageError": "_core.errors",
    "JsonObject": "_core.inputs",
    "Stats": "_core.stats",
    "Step": "_core.events",
}


def __getattr__(name: str) -> "Any":
    if name.startswith("__") and name not in {"__all__", "__version__"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The events' types are for type checkers; few programs that run ask for them.
    home_of = "_core.events" if name.endswith("Event") and name != "RunEvent" else "_exports"
    home = import_module(f"{__name__}.{_ALONE.get(name, home_of)}")
    try:
        found = globals()[name] = getattr(home, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module(f"{__name__}._exports").__all__})
