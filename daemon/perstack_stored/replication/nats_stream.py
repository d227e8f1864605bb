"""A replicated log on NATS JetStream: one thread with an event loop of its own.

Messages are published to the stream's subject, each with a reply subject of ours, and read from its replicas
(`nats_replicas.py`). A hole is asked for again, then of the leader, and never skipped.
"""

import asyncio
import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
import nats.errors
import structlog

from perstack_stored.errors import ConfigError, JournalFailedError, StoredError, StreamFailedError

from .nats_admin import NatsAddress, connect_options
from .nats_connection import Connection, connect, reason_of
from .nats_replicas import Replicas, wait
from .pieces import pieces_of, split
from .stream import LoggedMessage
from .trouble import Trouble

_ACK_SECONDS = 3.0  # then it is not known whether a message got into the log; it is sent again
_ACK_BYTES_PER_SECOND = 4 << 20  # a large message has longer
_HEADERS_BYTES = 1024  # of what the servers take as a message: room for headers
_POLL_SECONDS = 0.25  # the log is asked this often, also when nobody says that it has grown
_ANSWER_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
_AGAIN_SECONDS = 1.0  # between two attempts to connect
_SEQUENCE_BYTES = 8
_BUFFERED_BYTES_MAX = 32 << 20
_FIRST_PAUSE_SECONDS = 0.001  # mostly, a replica that lacks a message gets it within this
_PAUSE_SECONDS_MAX = 0.02  # each pause is twice as long as the one before, up to this
_REPLICA_ATTEMPTS = 16
_LEADER_ATTEMPTS = 20
_PENDING_BYTES_MAX = 32 << 20

_log = structlog.get_logger()


class NatsStream:
    """Follows a stream from a sequence on, and publishes to it."""

    def __init__(self, address: NatsAddress, after: int, notify: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            address: servers and name of the stream.
            after: sequence of the last message that the caller has.
            notify: called from the thread when there are messages or outcomes, and when it has failed.
        """
        self._address = address
        self._notify = notify
        self._next = after + 1
        self._last = after
        self._acknowledged = after  # the greatest sequence that the stream gave a message of ours
        self._ready: deque[LoggedMessage] = deque()
        self._ready_bytes = 0
        self._outcomes: deque[tuple[int, int | None]] = deque()
        self._failed: StoredError | None = None
        self._stopping = False
        self._loop = asyncio.new_event_loop()
        self._outgoing: deque[tuple[int, bytes]] = deque()
        self._unacked: dict[int, float] = {}
        self._news = asyncio.Event()  # the log may have grown, or there is room
        self._to_send = asyncio.Event()
        self._client: Connection | None = None
        self._untold = 0  # the highest sequence of an ack that other daemons may not know
        self._replicas: Replicas | None = None
        self._inbox = ""
        self._outage = Trouble()  # of the connection
        self._refusals = Trouble()  # of messages
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    # --- called by the serving loop ----------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a server can be reached."""
        return self._client is not None and self._client.is_connected

    @property
    def last(self) -> int:
        """The highest sequence that was heard of."""
        return self._last

    @property
    def fault(self) -> str:
        """Why no server can be used now, or why messages are refused; "" if all is well."""
        return self._outage.text or self._refusals.text

    def publish(self, number: int, body: bytes) -> None:
        """Send a message."""
        self._outgoing.append((number, body))
        self._call(self._to_send.set)

    def take_outcomes(self) -> list[tuple[int, int | None]]:
        """Return what became of messages: numbers, and sequences, or None if that is not known."""
        taken = []
        while self._outcomes:
            taken.append(self._outcomes.popleft())
        return taken

    def take(self, bytes_max: int) -> list[LoggedMessage]:
        """Return the next messages, at least one if there is one."""
        if self._failed is not None:
            raise self._failed
        taken: list[LoggedMessage] = []
        size = 0
        while self._ready and (not taken or size + len(self._ready[0].body) <= bytes_max):
            message = self._ready.popleft()
            size += len(message.body)
            taken.append(message)
        if taken:
            was_full = self._ready_bytes >= _BUFFERED_BYTES_MAX
            self._ready_bytes -= size
            if was_full:
                self._call(self._news.set)
        return taken

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._call(self._wake_all)
        self._thread.join(5.0)

    def _call(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed
            return

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except StreamFailedError as error:
            self._failed = error
        except Exception as error:  # noqa: BLE001 - the loop must learn of any fault of this thread
            _log.exception("stream_failed")
            self._failed = JournalFailedError(f"reading the stream failed: {type(error).__name__}")
        finally:
            self._notify()
            self._loop.close()

    def _wake_all(self) -> None:
        self._news.set()
        self._to_send.set()
        if self._replicas is not None:
            self._replicas.wake()

    async def _serve(self) -> None:
        while not self._stopping:
            client = await self._connect()
            if client is None:
                await wait(self._news, _AGAIN_SECONDS)
                continue
            await self._use(client)
            if not self._stopping:
                # The servers have sent it away: its rights have changed, say. The file is read again.
                self._outage.note("stream_closed", "the servers have ended the connection")
                self._forget_unacked()
                await wait(self._news, _AGAIN_SECONDS)

    async def _connect(self) -> Connection | None:
        """Connect, with the credentials as they are now; returns None if it does not succeed in seconds."""
        try:
            connecting = asyncio.ensure_future(
                connect(
                    connect_options(self._address),
                    self._on_error,
                    pending_size=_PENDING_BYTES_MAX,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                )
            )
            await asyncio.wait({connecting}, timeout=_CONNECT_SECONDS)
            if connecting.done():
                return connecting.result()
            connecting.cancel()
            await asyncio.wait({connecting}, timeout=_ANSWER_SECONDS)
            self._outage.note("stream_unreachable", "no server takes the connection")
        except (OSError, nats.errors.Error, TimeoutError) as error:
            self._outage.note("stream_unreachable", reason_of(error))
        except ConfigError as error:
            self._outage.note("stream_unreachable", str(error))
        return None

    async def _use(self, client: Connection) -> None:
        """Publish and follow until the end, or until the connection is closed for good."""
        self._client = client
        if self._outage.end():
            _log.info("stream_connected")
        self._inbox = client.new_inbox()
        await client.listen(f"{self._inbox}.a.*", self._on_ack)
        self._replicas = replicas = Replicas(client, self._address.name)
        await replicas.subscribe()
        await client.listen(self._address.tick, self._on_tick)
        sending = asyncio.ensure_future(self._send_all(client))
        following = asyncio.ensure_future(self._follow(client, replicas))
        done, _ = await asyncio.wait({sending, following}, return_when=asyncio.FIRST_COMPLETED)
        if not client.is_closed:
            self._stopping = True
        self._wake_all()
        await asyncio.wait({sending, following}, timeout=_ANSWER_SECONDS)
        await client.close()
        for task in done:
            task.result()

    async def _on_error(self, error: Exception) -> None:
        self._outage.note("stream_error", reason_of(error))

    async def _on_disconnected(self) -> None:
        if not self._stopping:
            _log.warning("stream_disconnected")

    async def _on_reconnected(self) -> None:
        self._outage.end()
        _log.info("stream_reconnected")
        self._forget_unacked()
        self._wake_all()

    def _on_tick(self, _subject: bytes, _headers: bytes, data: bytes) -> None:
        if len(data) == _SEQUENCE_BYTES:
            self._heard(int.from_bytes(data, "little"))

    def _heard(self, sequence: int) -> None:
        if sequence > self._last:
            self._last = sequence
            self._news.set()

    # --- publishing --------------------------------------------------------------------------------

    async def _send_all(self, client: Connection) -> None:
        while not self._stopping and not client.is_closed:
            await self._tell(client)
            while self._outgoing:
                number, body = self._outgoing.popleft()
                self._unacked[number] = time.monotonic() + _ACK_SECONDS + len(body) / _ACK_BYTES_PER_SECOND
                try:
                    await self._send(client, number, body)
                except (OSError, nats.errors.Error) as error:
                    self._refusals.note("stream_publish_failed", reason_of(error))
                    self._settle(number, None)
            await wait(self._to_send, _POLL_SECONDS)
            now = time.monotonic()
            for number in [number for number, until in self._unacked.items() if until < now]:
                self._settle(number, None)

    async def _tell(self, client: Connection) -> None:
        """Tell the other daemons that the log has grown; without a connection they find out themselves."""
        sequence, self._untold = self._untold, 0
        if sequence and client.is_connected:
            with contextlib.suppress(OSError, nats.errors.Error):
                await client.publish(self._address.tick, sequence.to_bytes(_SEQUENCE_BYTES, "little"))

    async def _send(self, client: Connection, number: int, body: bytes) -> None:
        """Publish a message, in pieces if it is too large for the servers: they take all of them or none."""
        subject, reply = self._address.subject, f"{self._inbox}.a.{number}"
        if len(body) <= client.max_payload - _HEADERS_BYTES:
            await client.publish(subject, body, reply=reply)
            return
        batch, last = secrets.token_hex(16), pieces_of(body)
        for index, piece in enumerate(split(body), 1):
            if number not in self._unacked:
                return  # the connection is a new one: it is sent again from its beginning
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(index)}
            if index == last:
                headers["Nats-Batch-Commit"] = "1"
            await client.publish(subject, piece, reply=reply if index == last else "", headers=headers)

    def _forget_unacked(self) -> None:
        for number in list(self._unacked):
            self._settle(number, None)

    def _settle(self, number: int, sequence: int | None) -> None:
        if self._unacked.pop(number, None) is not None or sequence is not None:
            self._outcomes.append((number, sequence))
            if sequence is None:
                self._notify()  # a message that is in the log needs nothing more before it comes from there

    def _on_ack(self, subject: bytes, _headers: bytes, data: bytes) -> None:
        number = int(subject.rpartition(b".")[2])
        sequence = None
        try:
            answer = msgspec.json.decode(data) if data else {}
        except msgspec.DecodeError:
            answer = {}
        if isinstance(answer.get("seq"), int) and "error" not in answer:
            sequence = answer["seq"]
            self._refusals.end()
            self._acknowledged = max(self._acknowledged, sequence)
            self._heard(sequence)
            self._untold = max(self._untold, sequence)
            self._to_send.set()
        elif answer.get("error"):
            self._refusals.note("stream_refused", str(answer["error"].get("description"))[:200])
        self._settle(number, sequence)

    # --- following ---------------------------------------------------------------------------------

    async def _follow(self, client: Connection, replicas: Replicas) -> None:
        missed = 0
        while not self._stopping and not client.is_closed:
            if self._ready_bytes >= _BUFFERED_BYTES_MAX:
                await wait(self._news, _POLL_SECONDS)
                continue
            self._news.clear()
            if not client.is_connected:
                await wait(self._news, _POLL_SECONDS)
                continue
            found, is_hole = await replicas.ask(self._next)
            if found:
                missed = 0
                self._deliver(found)
                if replicas.is_at_end and self._next > self._last and not self._stopping:
                    self._news.clear()  # of what has come with this answer
                    await wait(self._news, _POLL_SECONDS)
            elif is_hole or self._next <= self._last:
                missed += 1
                if missed > _REPLICA_ATTEMPTS:
                    is_last = missed > _REPLICA_ATTEMPTS + _LEADER_ATTEMPTS
                    if is_last and self._next > self._acknowledged and await replicas.end_before(self._next):
                        # Only somebody's tick named it: that is no proof that it was stored.
                        _log.warning("stream_tick_ignored", sequence=self._last, stream_last=self._next - 1)
                        self._last, missed = self._next - 1, 0
                        continue
                    message = await replicas.ask_leader(self._next, is_last=is_last)
                    if message is not None:
                        _log.error("stream_hole", sequence=message.sequence, reason="only the leader has it")
                        missed = 0
                        self._deliver([message])
                        continue
                pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(missed - 1, 9), _PAUSE_SECONDS_MAX)
                await replicas.pause(pause if missed < _REPLICA_ATTEMPTS else _POLL_SECONDS)
            else:
                missed = 0
                await wait(self._news, _POLL_SECONDS)

    def _deliver(self, messages: list[LoggedMessage]) -> None:
        self._next = messages[-1].sequence + 1
        self._last = max(self._last, messages[-1].sequence)
        self._ready_bytes += sum([len(message.body) for message in messages])
        self._ready.extend(messages)
        self._notify()
