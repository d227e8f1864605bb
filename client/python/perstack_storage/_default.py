"""The one client behind the module-level functions: made when first used, with the base as it is then."""

import os
import threading

from perstack_storage._client import Client
from perstack_storage._endpoint import ENDPOINT_VARIABLE, resolve_base


class _Default:
    """What the first call found, for all later ones. It may be used by threads, and on after a fork."""

    def __init__(self) -> None:
        self._renew_lock()
        self._client: Client | None = None
        self._base: str | None = None
        # The lock may be held by a thread that the child does not have.
        os.register_at_fork(after_in_child=self._renew_lock)

    def client(self) -> Client:
        with self._lock:
            if self._client is None:
                self._look()
            assert self._client is not None
            return self._client

    def base(self) -> str:
        client = self.client()
        if self._base is None:
            # Only the daemon knows which base is behind an endpoint that was named.
            self._base = str(client.hello()["base"])
        return self._base

    def close(self) -> None:
        with self._lock:
            client, self._client, self._base = self._client, None, None
        if client is not None:
            client.close()

    def _look(self) -> None:
        if os.environ.get(ENDPOINT_VARIABLE):
            self._base, self._client = None, Client()
            return
        self._base = resolve_base(None)
        self._client = Client(base_path=self._base)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


_default = _Default()


def default_client() -> Client:
    """Returns the client behind the module-level functions, e.g. for its pipeline.

    PERSTACK_STORED_ENDPOINT, PERSTACK_STORED_BASE and the current directory are looked at when it is first
    needed; a later change of them, or of the directory, changes nothing until `close_default_client`.
    """
    return _default.client()


def default_base() -> str:
    """Returns the absolute base that the module-level functions store into."""
    return _default.base()


def close_default_client() -> None:
    """Closes the client behind the module-level functions; the next call makes a new one.

    Calls under way in other threads end with ClosedError.
    """
    _default.close()
