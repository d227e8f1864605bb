"""The one client of the module-level functions: made when first used, with the base as it is then."""

import os

from perstack_storage._sync.client import Client
from perstack_storage._wire.endpoint import ENDPOINT_VARIABLE, resolve_base

_MADE = "made"


class _Made:
    """A client, and the base where it is known."""

    def __init__(self) -> None:
        self.base = None if os.environ.get(ENDPOINT_VARIABLE) else resolve_base(None)
        self.client = Client(base_path=self.base)


# What the first call found, for all later ones, in all threads, and on after a fork. There is no lock: a
# signal handler may come at any step. Of two that are made at a time, one is used.
_made: dict[str, _Made] = {}


def _default() -> _Made:
    return _made.get(_MADE) or _made.setdefault(_MADE, _Made())


def default_client() -> Client:
    """Returns the client of the module-level functions, e.g. for its pipeline.

    PERSTACK_STORED_ENDPOINT, PERSTACK_STORED_BASE, PERSTACK_STORAGE_PATH and the current directory are looked
    at when it is first needed; a later change of them changes nothing until `close_default_client`.
    """
    return _default().client


def default_base() -> str:
    """Returns the absolute base that the module-level functions store into."""
    default = _default()
    if default.base is None:
        # Only the daemon knows which base belongs to an endpoint that was named.
        default.base = str(default.client.hello()["base"])
    return default.base


def close_default_client() -> None:
    """Closes the client of the module-level functions; the next call makes a new one.

    Calls under way in other threads end with ClosedError.
    """
    default = _made.pop(_MADE, None)
    if default is not None:
        default.client.close()
