"""Who sent a message: told by the kernel (ipc) or by its key (CURVE), never by the client's own word.

Who connected by ipc is known as long as the connection is open. To a message by tcp libzmq attaches it;
looking there costs as much as reading the message, so it is remembered by routing id. Only for a moment: an
id may be claimed by another client once its owner is gone.
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
_SO_PEERPIDFD = 77  # Python does not name it; the same on all machines but PA-RISC and SPARC

_log = structlog.get_logger()


class Peer(NamedTuple):
    """A client, as far as it is known."""

    access: Access
    client: str = ""  # name in the list of keys
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    address: str = ""
    reason: str = ""  # why it may do nothing
    process: str = ""  # its name where many are told apart, if it has no pid here

    def as_log_fields(self) -> dict[str, Any]:
        """What logs say of it."""
        if self.uid is not None:
            return {"uid": self.uid, "pid": self.pid}
        return {"client": self.client or None, "address": self.address}

    @property
    def key(self) -> Client:
        """What stands for this client where many are told apart: process, key, or address."""
        if self.pid is not None:
            return client_of(self.pid, self.process)
        return f"client {self.client}" if self.client else f"address {self.address}"


_UNKNOWN = Peer(Access.NONE, reason="who you are can't be told")


class Peers:
    """The clients that are connected by ipc, and those by tcp that were heard of lately. The loop's.

    Attributes:
        strict: some clients may do less than others, so each must be looked at.
    """

    def __init__(self, rules: AccessRules, rates: RateLimiter) -> None:
        self._local: dict[RoutingId, Peer] = {}
        self._remote: dict[RoutingId, Peer] = {}
        self._keys: dict[RoutingId, Client] = {}  # of those by ipc
        self._parting: list[Callable[[RoutingId], None]] = []
        self.rates = rates
        self.refused = 0
        self._throttle = LogThrottle(_REMEMBERED_MAX)
        self.apply_rules(rules)

    def apply_rules(self, rules: AccessRules) -> None:
        """Apply new rules, to those that are connected as well."""
        self._rules = rules
        self.strict = rules.lists_users or rules.clients is not None
        self._remote.clear()
        for number, peer in self._local.items():
            assert peer.uid is not None
            assert peer.gid is not None
            assert peer.pid is not None
            self._local[number] = self._user(peer.uid, peer.gid, peer.pid, peer.process)

    def on_tick(self) -> None:
        """Forget what may be no longer so; to be called each second."""
        if self.strict or len(self._remote) > _REMEMBERED_MAX:
            self._remote.clear()

    def arrived(self, number: int, uid: int, gid: int, pid: int, process: str = "") -> Client:
        """Note who has connected by ipc, as the kernel says; what stands for it where many are told apart."""
        peer = self._local[number] = self._user(uid, gid, pid, process)
        key = self._keys[number] = peer.key
        return key

    def left(self, number: int) -> None:
        """Forget one who had, and let all who keep something for the connection free it."""
        for part in self._parting:
            part(number)
        del self._local[number], self._keys[number]

    def on_leaving(self, free: Callable[[RoutingId], None]) -> None:
        """Call this with the number of each connection over ipc that ends; by tcp nothing tells of an end."""
        self._parting.append(free)

    def is_here(self, routing_id: RoutingId) -> bool:
        """Whether an answer may still be wanted; of tcp that can't be told. May be called in any thread."""
        return routing_id in self._local or not isinstance(routing_id, int)

    def client(self, routing_id: RoutingId) -> Client:
        """What stands for this client where many are told apart: process, key, or address."""
        key = self._keys.get(routing_id)
        if key is None:
            peer = self._remote.get(routing_id)
            key = NOBODY if peer is None else peer.key
        return key

    def knows(self, routing_id: bytes) -> bool:
        """Whether a client by tcp needs no `meet`."""
        return routing_id in self._remote

    def meet(self, routing_id: bytes, frame: "zmq.Frame") -> None:
        """Find out who sent a message by tcp, by a frame of it."""
        self._remote[routing_id] = self._identify(routing_id, frame)

    def of(self, routing_id: RoutingId) -> Peer | None:
        """Who it is, if that is known."""
        return self._local.get(routing_id) or self._remote.get(routing_id)

    def authorize(self, routing_id: RoutingId, access: Access, op: str, id: int | None) -> None:
        """Check that a client may do something.

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
                reason=peer.reason or "read-only",
                **peer.as_log_fields(),
            )
        raise Refusal(ErrorCode.FORBIDDEN, peer.reason or "this client may only read")

    def charge(self, routing_id: RoutingId, records: int, size: int) -> None:
        """Count a store against its client's rate.

        Raises:
            Refusal: BUSY.
        """
        self.rates.charge(self.client(routing_id), records, size)

    def must_mask(self, routing_id: RoutingId) -> bool:
        """Whether secrets are hidden from this client."""
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
            # Plain tcp, which goes with no lists: anyone of this machine.
            return Peer(Access.NONE if self.strict else Access.WRITE, address=address, reason=_UNKNOWN.reason)
        # Every tcp connection is a CURVE one here, so this property is from our own gate.
        listed = self._rules.of_key(_property(frame, "User-Id"))
        if listed is None:
            return Peer(Access.NONE, address=address, reason="this client's key is not on the daemon's list")
        return Peer(listed.access, listed.name, address=address)


def process_of(sock: socket.socket, number: int, uid: int) -> str:
    """A name for the process that connected, where it has no number in the daemon's namespace of processes.

    All such processes have the number 0. The kernel's handle of a process (Linux 6.5) is a file of its own
    for each process (6.9), whose inode tells them apart; where that can't be had, each connection counts as a
    client, and no two users are ever one.
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
    """Where files without an inode of their own are; before Linux 6.9 the handles of processes as well."""
    with select.epoll() as plain:
        return os.fstat(plain.fileno()).st_dev


def _property(frame: "zmq.Frame", name: str) -> str:
    try:
        return str(frame.get(name))
    except (zmq.ZMQError, UnicodeDecodeError):
        return ""
