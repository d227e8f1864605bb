"""Dispatch: a store goes to the group commit, a read to the read threads, the loop answers the rest."""

import time
from collections.abc import Callable
from typing import Any

import structlog

from perstack_storage.protocol import ErrorCode
from perstack_stored.access.curve_keys import Access
from perstack_stored.config.settings import Settings
from perstack_stored.errors import Refusal
from perstack_stored.model import deletions
from perstack_stored.observe import log
from perstack_stored.protocol import frames
from perstack_stored.protocol.frames import RequestHeader
from perstack_stored.protocol.limits import AT_LEAST_SECONDS, CURSORS_LISTED_MAX
from perstack_stored.protocol.messages import Envelope
from perstack_stored.protocol.multipart import MultipartAssembler
from perstack_stored.read.arguments import ARGUMENTS, at_least, check_arguments, check_as_of, check_history
from perstack_stored.read.requests import ReadRequest
from perstack_stored.read.waiting import ReadAhead, ReadsAwaitingIndex
from perstack_stored.read.window_reader import RECORDS_MAX as NEAR_THE_END_RECORDS
from perstack_stored.store.cursor_requests import cursor_request
from perstack_stored.store.group_commit import GroupCommit, HeldRead
from perstack_stored.store.requests import Payload, open_request

from .parts import ServerParts
from .projections import ProjectionCoordinator
from .status import StatusReporter

_log = structlog.get_logger()


class RequestDispatcher:
    """Parses each request, then answers it or passes it on. Used in the loop's thread."""

    def __init__(
        self,
        parts: ServerParts,
        multipart: MultipartAssembler,
        group_commit: GroupCommit,
        waiting: ReadsAwaitingIndex,
        projections: ProjectionCoordinator,
        status: StatusReporter,
    ) -> None:
        self._endpoints = parts.endpoints
        self._peers = parts.peers
        self._journal = parts.journal
        self._cursors = parts.sessions.cursors
        self._reads = parts.reads
        self._copying = parts.copying
        self._settings = parts.settings
        self._multipart = multipart
        self._group_commit = group_commit
        self._committer = group_commit.committer
        self._waiting = waiting
        self._projections = projections
        self._status = status
        self._evicted_values = 0  # last logged

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed bounds."""
        self._settings = settings

    def on_tick(self) -> None:
        """Forget multipart values whose senders fell silent; called about once a second."""
        silent = self._multipart.forget_silent()
        if silent:
            _log.warning("parts_forgotten", values=silent, reason="their senders fell silent")
        evicted = self._multipart.gave_way - self._evicted_values
        if evicted:
            self._evicted_values = self._multipart.gave_way
            _log.warning("parts_forgotten", values=evicted, reason="others needed their room")

    def dispatch(self, envelope: Envelope, frame: bytes | None) -> None:
        """Dispatch a request. Each request gets one answer, now or later.

        Args:
            envelope: the connection to answer.
            frame: the request; None if the message had more frames than a request may have.
        """
        id, op = None, ""
        try:
            if frame is None:
                raise Refusal(ErrorCode.BAD_FRAME, "the message has too many frames")
            head, body = frames.split(frame)
            if len(frame) > self._settings.frame_bytes_max:
                id = frames.rescue_id(head)
                raise Refusal(
                    ErrorCode.TOO_LARGE,
                    f"the frame is larger than limits.frameBytes ({self._settings.frame_bytes_max})",
                )
            try:
                header = frames.decode_header(head)
            except Refusal:
                id = frames.rescue_id(head)
                raise
            id, op = header.id, header.op
            stores = op in frames.STORE_KINDS or op == frames.BATCH_OP
            self._authorize(envelope, header, writes=stores or op in frames.CURSOR_OPS)
            if stores:
                self._store(envelope, header, body)
            elif op in frames.CURSOR_OPS:
                self._set_cursor(envelope, header, body)
            elif op == "cursors":
                self._list_cursors(envelope, header, body)
            elif op in ARGUMENTS:
                self._read(envelope, header, body)
            else:
                self._answer(envelope, header)
        except Refusal as refusal:
            self.refuse(envelope, id, refusal, op)
        except Exception:  # noqa: BLE001 - a fault of the daemon in one request must not end it for all clients
            self._fail(envelope, id, op)

    def _fail(self, envelope: Envelope, id: int | None, op: str) -> None:
        """Log the fault that is being handled, and answer the request that met it."""
        _log.exception("request_failed", id=id)
        fault = Refusal(ErrorCode.INTERNAL, "a fault of the daemon; its log says more")
        self.refuse(envelope, id, fault, op)

    def _authorize(self, envelope: Envelope, header: RequestHeader, *, writes: bool) -> None:
        """Raise Refusal (FORBIDDEN) if the client may not do this, or nobody may."""
        op, id = header.op, header.id
        if writes and self._copying.is_on:
            self._copying.refuse_stores()
        if op in deletions.OPERATIONS:
            self._peers.authorize(envelope[0], Access.DELETE, op, id)
        elif self._peers.strict:
            self._peers.authorize(envelope[0], Access.WRITE if writes else Access.READ, op, id)

    def refuse(self, envelope: Envelope, id: int | None, refusal: Refusal, op: str) -> None:
        """Answer a request with an error, and count it."""
        if log.is_debug():
            peer = self._peers.of(envelope[0])
            who = peer.as_log_fields() if peer else {}
            _log.debug("refused", op=op, request=id, code=refusal.code.value, field=refusal.field, **who)
        self._endpoints.send(
            envelope, self._committer.answers.refuse(id, refusal, op if op in frames.OPERATIONS else "?")
        )

    def _store(self, envelope: Envelope, header: RequestHeader, body: bytes) -> None:
        payload: Payload = body
        client = self._peers.client(envelope[0])
        if header.parts:
            if header.op == frames.BATCH_OP or header.op in deletions.OPERATIONS:
                raise Refusal(ErrorCode.BAD_REQUEST, f"{header.op} can't come in parts", "parts")
            whole = self._multipart.take(envelope[0], header, body, client)
            if whole is None:
                assert header.id is not None
                self._endpoints.send(envelope, frames.part_answer(header.id, header.part))
                return
            payload = whole
        elif header.part or header.bytes:
            raise Refusal(ErrorCode.BAD_REQUEST, "a part of a value needs parts, their count", "parts")
        request = open_request(
            envelope, header, payload, items_max=self._settings.batch_items_max, client=client
        )
        if self._peers.rates.active:
            self._peers.rates.charge(client, len(request.items), request.size)
        if self._projections.index.out_of_space:
            raise Refusal(
                ErrorCode.STORAGE_FULL, "the disk is full: there is no room to index what is stored"
            )
        for evicted in self._group_commit.admit(request):
            busy = Refusal(ErrorCode.BUSY, "many stores of this client wait, and others have fewer")
            self.refuse(evicted.envelope, evicted.id, busy, evicted.op)

    def _read(self, envelope: Envelope, header: RequestHeader, body: bytes) -> None:
        assert header.id is not None
        arguments = check_arguments(header.op, frames.decode_arguments(body))
        since = time.monotonic()
        if header.op == "readPart":
            self._start_read(envelope, header, arguments, since)
        else:
            self._hold(envelope, header, since, lambda: self._start_read(envelope, header, arguments, since))

    def _hold(
        self, envelope: Envelope, header: RequestHeader, since: float, start: Callable[[], None]
    ) -> None:
        """Start a request once this daemon has what its client has seen, and what others have stored."""
        position = at_least(header)
        if position <= self._journal.mark.position and not self._group_commit.holds:
            start()
            return
        assert header.id is not None
        client = self._peers.client(envelope[0])
        deadline = _deadline(header, since)

        def go_on() -> None:
            try:
                if position > self._journal.mark.position:
                    self._waiting.ahead.add(ahead)
                else:
                    start()
            except Refusal as refusal:
                self.refuse(envelope, header.id, refusal, header.op)
            except Exception:  # noqa: BLE001 - as in `dispatch`
                self._fail(envelope, header.id, header.op)

        until = since + AT_LEAST_SECONDS if deadline is None else deadline
        ahead = ReadAhead(position, envelope, header.id, header.op, client, until, go_on)
        if self._group_commit.holds:
            self._group_commit.hold(HeldRead(envelope, header.id, header.op, client, deadline, go_on))
        else:
            go_on()

    def _start_read(
        self, envelope: Envelope, header: RequestHeader, arguments: dict[str, Any], now: float
    ) -> None:
        assert header.id is not None
        if self._peers.must_mask(envelope[0]):
            arguments["masked"] = True
        if header.op == "readAll":
            self._begin_at_cursor(arguments)
            check_history(
                arguments, self._journal.store.hex(), self._journal.mark.position, self._journal.epochs
            )
        check_as_of(arguments, self._journal.mark.position)
        deadline = _deadline(header, now)
        # Stores in the queue are not acknowledged yet: the read must see only what is synced now.
        position = self._journal.mark.position
        peer, client = self._peers.of(envelope[0]), self._peers.client(envelope[0])
        waits = self._waits(arguments, position)
        if waits:  # for new records: of what is there already it needs the deletions only
            position = min(position, max(self._committer.deleted_to, at_least(header)))
        request = ReadRequest(
            envelope, header.id, header.op, arguments, position, deadline, now, peer, client, waits
        )
        if waits:
            other = self._reads.long_polls.add(request)
            if other is not None:
                busy = Refusal(ErrorCode.BUSY, "a read that waits gave way to those of other clients")
                self.refuse(other.envelope, other.id, busy, other.op)
            return
        self._reads.admit(client, self._settings.reads_max)
        if header.op == "readPart" or self._projections.indexed(position):
            self._reads.submit(request)
        else:
            self._waiting.add(request)
            self._projections.index.send(self._journal.mark)

    def _begin_at_cursor(self, arguments: dict[str, Any]) -> None:
        """Let a read begin at its cursor; one that is not there yet begins where the arguments say."""
        cursor = self._cursors.get(arguments["name"]) if "name" in arguments else None
        if cursor is not None:
            arguments["after"] = cursor.position
            arguments.pop("last", None)
            arguments.pop("epoch", None)

    def _set_cursor(self, envelope: Envelope, header: RequestHeader, body: bytes) -> None:
        assert header.id is not None
        arguments = check_arguments(header.op, frames.decode_arguments(body))
        since = time.monotonic()
        self._hold(envelope, header, since, lambda: self._admit_cursor(envelope, header, arguments))

    def _admit_cursor(self, envelope: Envelope, header: RequestHeader, arguments: dict[str, Any]) -> None:
        assert header.id is not None
        journal = self._journal
        check_history(arguments, journal.store.hex(), journal.mark.position, journal.epochs, "position")
        client = self._peers.client(envelope[0])
        self._group_commit.admit_cursor(cursor_request(envelope, header.id, header.op, arguments, client))

    def _list_cursors(self, envelope: Envelope, header: RequestHeader, body: bytes) -> None:
        assert header.id is not None
        arguments = check_arguments(header.op, frames.decode_arguments(body))
        limit = min(arguments.get("limit", CURSORS_LISTED_MAX), CURSORS_LISTED_MAX)
        after = arguments.get("after", "")
        found = [(name, cursor) for name, cursor in self._cursors.all() if name > after]
        position, now_ms = self._journal.mark.position, self._journal.clock.now_ms()
        items = [
            {
                "name": name,
                "position": cursor.position,
                "lag": position - cursor.position,
                "idleSeconds": max(0, now_ms - cursor.time_ms) // 1000,
            }
            for name, cursor in found[:limit]
        ]
        following = items[-1]["name"] if len(found) > limit else None
        self._committer.answers.counter.note(header.op)
        frame = frames.read_answer(header.id, frames.encode(items), position=position, next=following)
        self._endpoints.send(envelope, frame)

    @staticmethod
    def _waits(arguments: dict[str, Any], position: int) -> bool:
        """Whether a read waits for new records. One that is far back, or looks back, has some now."""
        if not arguments.get("waitMs") or "last" in arguments:
            return False
        return bool(position - arguments.get("after", 0) <= NEAR_THE_END_RECORDS)

    def _answer(self, envelope: Envelope, header: RequestHeader) -> None:
        assert header.id is not None
        if header.op == "ping":
            body = b"{}"
        elif header.op == "hello":
            is_copy = self._copying.is_on
            may_delete = not is_copy and self._peers.may_delete(envelope[0])
            access = "read-only" if is_copy or self._peers.must_mask(envelope[0]) else "read-write"
            body = frames.encode(self._status.hello(header, access, may_delete=may_delete))
        elif header.op == "stats":
            body = frames.encode(self._status.stats())
        else:
            raise Refusal(ErrorCode.UNKNOWN_OPERATION, "there is no such operation", "op")
        self._committer.answers.counter.note(header.op)
        frame = frames.read_answer(header.id, body, position=self._journal.mark.position)
        self._endpoints.send(envelope, frame)


def _deadline(header: RequestHeader, since: float) -> float | None:
    """The monotonic time at which a request that came in at `since` is given up."""
    return None if header.timeoutMs is None else since + max(0, min(header.timeoutMs, 2**31)) / 1000
