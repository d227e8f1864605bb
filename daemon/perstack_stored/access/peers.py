"""Identity and access of peers: given by the kernel (ipc) or by the key (CURVE), never by the client itself.

The identity of an ipc connection holds as long as it is open. For tcp, libzmq attaches it to each message;
reading it costs as much as reading the message, so it is cached by routing id, but only briefly: an id
may be claimed by another client once its owner is gone.
"""

import contextlib
import functools
import os
import select
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
import zmq

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.shares import NOBODY, Client, client_of
from perstack_stored.observe.log import LogThrottle
from perstack_stored.protocol.messages import RoutingId

from .curve_keys import Access
from .rate_limits import RateLimiter
from .rules import AccessRules

_AUTOMATIC_ID_BYTES = 5
_REMEMBERED_MAX = 50_000
_OP_CHARS_MAX = 40
_SO_PEERPIDFD = 77  # Python has no name for it; the same on all machines but PA-RISC and SPARC

_log = structlog.get_logger()


class Peer(NamedTuple):
    """Identity and access of a client."""

    access: Access
    client: str = ""  # name in the list of keys
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    address: str = ""
    reason: str = ""  # why it has no access
    process: str = ""  # key of its process, if it has no pid in the daemon's namespace

    def as_log_fields(self) -> dict[str, Any]:
        """Fields of a log event that identify it."""
        if self.uid is not None:
            return {"uid": self.uid, "pid": self.pid}
        return {"client": self.client or None, "address": self.address}

    @property
    def key(self) -> Client:
        """The client's key for shares and rates: process, CURVE key, or address."""
        if self.pid is not None:
            return client_of(self.pid, self.process)
        return f"client {self.client}" if self.client else f"address {self.address}"


_UNKNOWN = Peer(Access.NONE, reason="the client could not be identified")


class Peers:
    """The clients that are connected by ipc, and those by tcp that were seen lately. Used by the loop.

    Attributes:
        strict: some clients may do less than others, so each request must be checked.
    """

    def __init__(self, rules: AccessRules, rates: RateLimiter) -> None:
        self._local: dict[RoutingId, Peer] = {}
        self._remote: dict[RoutingId, Peer] = {}
        self._keys: dict[RoutingId, Client] = {}  # of ipc connections
        self._parting: list[Callable[[RoutingId], None]] = []
        self.rates = rates
        self.refused = 0
        self._throttle = LogThrottle(_REMEMBERED_MAX)
        self.apply_rules(rules)

    def apply_rules(self, rules: AccessRules) -> None:
        """Apply new rules, also to open connections."""
        self._rules = rules
        self.strict = rules.lists_users or rules.clients is not None
        self._remote.clear()
        for number, peer in self._local.items():
            assert peer.uid is not None
            assert peer.gid is not None
            assert peer.pid is not None
            self._local[number] = self._user(peer.uid, peer.gid, peer.pid, peer.process)

    def on_tick(self) -> None:
        """Forget what may have changed; called about once a second."""
        if self.strict or len(self._remote) > _REMEMBERED_MAX:
            self._remote.clear()

    def arrived(self, number: int, uid: int, gid: int, pid: int, process: str = "") -> Client:
        """Note an ipc connection with the identity that the kernel gives; return its client key."""
        peer = self._local[number] = self._user(uid, gid, pid, process)
        key = self._keys[number] = peer.key
        return key

    def left(self, number: int) -> None:
        """Forget a connection that ended, and call the functions of `on_leaving`."""
        for part in self._parting:
            part(number)
        del self._local[number], self._keys[number]

    def on_leaving(self, free: Callable[[RoutingId], None]) -> None:
        """Call `free` with the number of each ipc connection that ends; for tcp no end is reported."""
        self._parting.append(free)

    def is_here(self, routing_id: RoutingId) -> bool:
        """Whether a connection may still be open; for tcp this is unknown. May be called from any thread."""
        return routing_id in self._local or not isinstance(routing_id, int)

    def client(self, routing_id: RoutingId) -> Client:
        """The client's key for shares and rates: process, CURVE key, or address."""
        key = self._keys.get(routing_id)
        if key is None:
            peer = self._remote.get(routing_id)
            key = NOBODY if peer is None else peer.key
        return key

    def knows(self, routing_id: bytes) -> bool:
        """Whether a tcp client needs no `meet`."""
        return routing_id in self._remote

    def meet(self, routing_id: bytes, frame: "zmq.Frame") -> None:
        """Identify the sender of a tcp message by a frame of it."""
        self._remote[routing_id] = self._identify(routing_id, frame)

    def of(self, routing_id: RoutingId) -> Peer | None:
        """The peer, if it is known."""
        return self._local.get(routing_id) or self._remote.get(routing_id)

    def authorize(self, routing_id: RoutingId, access: Access, op: str, id: int | None) -> None:
        """Check that a client has the access that an operation needs.

        Raises:
            Refusal: FORBIDDEN.
        """
        peer = self.of(routing_id) or _UNKNOWN
        if peer.access >= access:
            return
        self.refused += 1
        if self._throttle.admit(peer.key) is not None:
            _log.warning(
                "forbidden",
                op=op[:_OP_CHARS_MAX],
                request=id,
                reason=peer.reason or f"it lacks the access {access.name.lower()}",
                **peer.as_log_fields(),
            )
        may = "only read" if access is Access.WRITE else "not delete"
        raise Refusal(ErrorCode.FORBIDDEN, peer.reason or f"this client may {may}")

    def may_delete(self, routing_id: RoutingId) -> bool:
        """Whether a client may delete jobs and runs."""
        return (self.of(routing_id) or _UNKNOWN).access >= Access.DELETE

    def charge(self, routing_id: RoutingId, records: int, size: int) -> None:
        """Count a store against its client's rate.

        Raises:
            Refusal: BUSY.
        """
        self.rates.charge(self.client(routing_id), records, size)

    def must_mask(self, routing_id: RoutingId) -> bool:
        """Whether secrets are masked for this client."""
        return self.strict and (self.of(routing_id) or _UNKNOWN).access < Access.WRITE

    def _user(self, uid: int, gid: int, pid: int, process: str) -> Peer:
        access = self._rules.of_user(uid, gid)
        reason = "" if access else f"user {uid} is on none of the daemon's lists"
        return Peer(access, "", uid, gid, pid, reason=reason, process=process)

    def _identify(self, routing_id: bytes, frame: "zmq.Frame") -> Peer:
        address = _property(frame, "Peer-Address")
        claimed = _property(frame, "Identity") or (
            routing_id[:1] == b"\0" and len(routing_id) != _AUTOMATIC_ID_BYTES
        )
        if self.strict and claimed:
            return Peer(Access.NONE, address=address, reason="a client must not set a routing id of its own")
        if self._rules.clients is None:
            # Plain tcp can't go with lists of users: any user of this machine.
            return Peer(Access.NONE if self.strict else Access.WRITE, address=address, reason=_UNKNOWN.reason)
        # Every tcp connection is a CURVE one here, so this property comes from the daemon's ZAP handler.
        listed = self._rules.of_key(_property(frame, "User-Id"))
        if listed is None:
            return Peer(Access.NONE, address=address, reason="this client's key is not on the daemon's list")
        return Peer(listed.access, listed.name, address=address)


def process_of(sock: socket.socket, number: int, uid: int) -> str:
    """A key for a process that connected, if it has no number in the daemon's pid namespace.

    All such processes have the number 0. The kernel's handle of a process (Linux 6.5) is a file with an inode
    for each process (6.9), which identifies it; without it each connection counts as a
    client, and two users never share one.
    """
    with contextlib.suppress(OSError):
        fd = int(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        if found.st_dev != _anonymous_device():
            return f"user {uid} process {found.st_ino}"
    return f"user {uid} connection {number}"


@functools.cache
def _anonymous_device() -> int:
    """Device of files without an inode of their own; before Linux 6.9 also of process handles."""
    with select.epoll() as plain:
        return os.fstat(plain.fileno()).st_dev


def _property(frame: "zmq.Frame", name: str) -> str:
    try:
        return str(frame.get(name))
    except (zmq.ZMQError, UnicodeDecodeError):
        return ""
