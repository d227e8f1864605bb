"""Accepts connections at the Unix sockets, within the places that there are, and a share for each client."""

import errno
import select
import socket
import struct
import time
from collections import Counter
from typing import Protocol

import structlog

from perstack_stored.access.peers import process_of
from perstack_stored.model.shares import Client
from perstack_stored.observe.log import LogThrottle

from .connection import Newcomer

_ACCEPTED_MAX = 64  # in a round
_WAITING_MAX = 16  # accepted connections that wait for a place
_PAUSE_SECONDS = 0.5
_REASONS = ("full", "emfile", "enfile", "enobufs", "enomem", "enospc")  # of a pause; a system may have more
_UCRED = struct.Struct("3i")
_IN = select.EPOLLIN

_log = structlog.get_logger()


class Places(Protocol):
    """The connections that are served: what the acceptor needs of them."""

    @property
    def connections(self) -> int:
        """Count of open connections."""

    def welcome(self, newcomer: Newcomer) -> None:
        """Serve a new connection.

        Raises:
            OSError: it can't be watched; nothing has changed.
        """

    def must_yield(self, client: Client) -> Client | None:
        """The client that gives a place up to a newcomer's client; None: the newcomer waits."""

    def take_place(self, client: Client) -> None:
        """Close the newest connection of a client."""


class Acceptor:
    """Listeners, and connections that wait for a place. What it can't accept stays in the kernel's backlog.

    Attributes:
        pauses: how often accepting paused for a moment, by reason.
    """

    def __init__(self, epoll: select.epoll, places: Places, connections_max: int) -> None:
        self._epoll = epoll
        self._places = places
        self._connections_max = connections_max
        self._listeners: dict[int, socket.socket] = {}
        self._numbers = 0
        self._waiting: dict[Client, Newcomer] = {}  # accepted, and waiting for a place
        self._waiting_max = min(_WAITING_MAX, max(1, connections_max // 8))
        self._paused = ""
        self._paused_until = 0.0
        self._throttle = LogThrottle()
        self.pauses: Counter[str] = Counter(dict.fromkeys(_REASONS, 0))

    def listen(self, listener: socket.socket) -> None:
        """Accept clients at a listener from now on."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        self._epoll.register(listener, _IN)

    def accept(self, fd: int) -> None:
        """Accept what waits at a listener; nothing while accepting is paused or if it is no listener."""
        listener = self._listeners.get(fd)
        if listener is None or self._paused:
            return
        for _ in range(_ACCEPTED_MAX):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Descriptors or memory, of the process or of the machine: clients stay in the backlog.
                self._pause(errno.errorcode.get(error.errno or 0, "other").lower(), error)
                return
            try:
                if not self._let_in(sock):
                    return
            except OSError as error:
                sock.close()
                self._pause(errno.errorcode.get(error.errno or 0, "other").lower(), error)
                return

    def _let_in(self, sock: socket.socket) -> bool:
        """Serve a new connection, or make it wait for a place; return whether to accept more.

        If all places are taken, the client with most gives one up to a client with less. Else the newcomer
        waits, one connection for each client, so that other waiting clients are seen and get their share.
        """
        self._numbers += 1
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        process = "" if pid else process_of(sock, self._numbers, uid)
        newcomer = Newcomer(sock, self._numbers, uid, gid, pid, process)
        if self._places.connections < self._connections_max:
            self._places.welcome(newcomer)
            return True
        client = newcomer.client
        most = self._places.must_yield(client)
        if most is not None:
            waiting, self._waiting = self._waiting, {}  # this place is for the newcomer
            self._places.take_place(most)
            self._waiting = waiting
            self._places.welcome(newcomer)
            return True
        if client in self._waiting:
            sock.close()
            return True
        if len(self._waiting) < self._waiting_max:
            self._waiting[client] = newcomer
            self._log_full()
            return True
        sock.close()
        self._pause("full", f"there are {self._connections_max} connections, as many as may be")
        return False

    def _log_full(self) -> None:
        self.pauses["full"] += 1
        self._warn("full", f"there are {self._connections_max} connections, as many as may be")

    def on_place_free(self) -> None:
        """Serve a connection that waits, and accept more; called after a connection has closed."""
        if self._waiting:
            self._welcome_next()
        if self._paused == "full":
            self._resume()

    def _welcome_next(self) -> None:
        newcomer = self._waiting.pop(next(iter(self._waiting)))
        try:
            self._places.welcome(newcomer)
        except OSError:
            newcomer.sock.close()

    def _pause(self, reason: str, error: object) -> None:
        """Stop accepting for a moment: clients stay in the backlog. If watched, it would wake the loop."""
        self.pauses[reason] += 1
        self._paused, self._paused_until = reason, time.monotonic() + _PAUSE_SECONDS
        for fd in self._listeners:
            self._epoll.modify(fd, 0)  # not unregistered: watching it again could fail
        self._warn(reason, error)

    def _resume(self) -> None:
        self._paused = ""
        for fd in self._listeners:
            self._epoll.modify(fd, _IN)

    def on_tick(self, now: float) -> None:
        """Accept again after a pause; forget waiting clients that have left. Called about once a second."""
        if self._paused and self._paused != "full" and now >= self._paused_until:
            self._resume()
        for client, newcomer in list(self._waiting.items()):
            if newcomer.has_left():
                del self._waiting[client]
                newcomer.sock.close()

    def _warn(self, reason: str, error: object) -> None:
        """Log a warning, throttled; `more` counts suppressed ones."""
        more = self._throttle.admit(reason)
        if more is not None:
            _log.warning("accepting_paused", reason=reason, error=str(error), more=more)

    def close(self) -> None:
        """Accept no more."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for newcomer in self._waiting.values():
            newcomer.sock.close()
        self._waiting.clear()
