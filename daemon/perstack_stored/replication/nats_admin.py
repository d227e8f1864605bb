"""Streams of NATS: address, creation, and the check that one keeps what a journal needs."""

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from perstack_stored.errors import ConfigError, StartFailedError

from .nats_connection import connect, options_of, reason_of
from .pieces import PIECE_BYTES, PIECES_MAX
from .stream import Description

MESSAGE_BYTES_LEAST = 1 << 20
"""Of the largest message that the servers must take, `max_payload`: what they have without a setting."""
_FORMAT = "1"
_PORT = 4222
_NAME_MAX = 64


class NatsAddress(NamedTuple):
    """Servers of a cluster, and a stream there.

    Attributes:
        servers: URLs, without names and secrets of users.
        name: of the stream.
        credentials: path of a file with the user's credentials; empty without one.
    """

    servers: tuple[str, ...]
    name: str
    credentials: str = ""

    @property
    def subject(self) -> str:
        """Subject of the stream's messages."""
        return f"perstack.{self.name}.log"

    @property
    def tick(self) -> str:
        """Subject on which daemons tell each other that the stream has grown."""
        return f"perstack.{self.name}.tick"


def parse_address(url: str, credentials: str = "") -> NatsAddress:
    """Read `nats://HOST[:PORT],…/STREAM`; `tls://` for TLS.

    Raises:
        ConfigError: it is no such address, or holds a secret.
    """
    scheme, separator, rest = url.partition("://")
    hosts, _, name = rest.partition("/")
    if scheme not in {"nats", "tls"} or not separator or not hosts:
        raise ConfigError("journal: an address is nats://HOST[:PORT],…/STREAM, or tls:// for TLS")
    if "@" in hosts:
        raise ConfigError("journal: no user in the address; nats-credentials names the file that holds it")
    if not name or len(name) > _NAME_MAX or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError("journal: the name of the stream has letters, digits, - and _, at most 64")
    servers = []
    for host in hosts.split(","):
        try:
            found = urlsplit(f"{scheme}://{host}")
            port = found.port or _PORT
        except ValueError:
            raise ConfigError(f"journal: {host} is no host and port") from None
        if not found.hostname:
            raise ConfigError(f"journal: {host} is no host and port")
        shown = f"[{found.hostname}]" if ":" in found.hostname else found.hostname
        servers.append(f"{scheme}://{shown}:{port}")
    return NatsAddress(tuple(servers), name, credentials)


def connect_options(address: NatsAddress) -> dict[str, Any]:
    """Arguments of `nats_connection.connect` for a connection that is kept up.

    Raises:
        ConfigError: the credentials can't be used.
    """
    return options_of(address.servers, address.credentials) | {
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.25,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "name": "perstack-stored",
    }


class NewStream(NamedTuple):
    """What a new stream is made with.

    Attributes:
        replicas: machines that each keep all of it.
        age_seconds: older messages are discarded.
        bytes_max: beyond this size, the oldest are discarded; 0: no limit.
        sessions_max, remembered_records, guard_seconds: see `Description`.
        store: id of the store, 16 bytes; empty for a new one.
    """

    replicas: int
    age_seconds: int
    bytes_max: int
    sessions_max: int
    remembered_records: int
    guard_seconds: int
    store: bytes = b""


def create(address: NatsAddress, new: NewStream) -> Description:
    """Create a stream, and describe it.

    Raises:
        ConfigError: there is one of the name, or the servers refuse it.
        StartFailedError: no server can be reached.
    """
    config = StreamConfig(
        name=address.name,
        subjects=[address.subject],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        num_replicas=new.replicas,
        max_age=float(new.age_seconds),
        max_bytes=new.bytes_max or -1,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        allow_atomic=True,
        metadata={
            "perstack-format": _FORMAT,
            "perstack-store": (new.store or uuid.uuid4().bytes).hex(),
            "perstack-stream": secrets.token_hex(16),
            "perstack-sessions-max": str(new.sessions_max),
            "perstack-remembered-records": str(new.remembered_records),
            "perstack-guard-seconds": str(new.guard_seconds),
        },
    )
    return asyncio.run(_create(address, config))


def describe(address: NatsAddress) -> Description:
    """Describe a stream, and check that it keeps what a journal needs.

    Raises:
        ConfigError: there is no such stream, or it does not.
        StartFailedError: no server can be reached, or the cluster has no leader.
    """
    return asyncio.run(_describe(address))


def faults_of(config: StreamConfig) -> list[str]:
    """What is wrong with a stream's configuration, as sentences."""
    metadata = config.metadata or {}
    if metadata.get("perstack-format") != _FORMAT:
        return ["it was not made by `perstack-stored stream create` of this version"]
    wanted = (
        (config.storage == StorageType.FILE, "it is kept in memory: storage must be file"),
        (config.retention == RetentionPolicy.LIMITS, "its retention must be limits"),
        (config.discard == DiscardPolicy.OLD, "it must discard old messages when it is full"),
        (bool(config.deny_delete), "messages can be deleted: deny_delete must be set"),
        (bool(config.deny_purge), "it can be purged: deny_purge must be set"),
        (bool(config.allow_direct), "allow_direct must be set"),
        ((config.max_msgs_per_subject or -1) < 1, "it must have no limit of messages for a subject"),
        ((config.max_msgs or -1) < 1, "it must have no limit of messages"),
        ((config.max_msg_size or -1) < 1, "it must have no limit of a message's size"),
        (not config.mirror and not config.sources, "it must not be a mirror"),
    )
    return [sentence for holds, sentence in wanted if not holds]


async def _connected(address: NatsAddress) -> Client:
    found: list[Exception] = []

    async def note(error: Exception) -> None:
        found.append(error)

    reasons = []
    for server in address.servers:
        options = connect_options(address._replace(servers=(server,)))
        options |= {"max_reconnect_attempts": 1, "allow_reconnect": False}
        try:
            return await connect(options, note)
        except (OSError, nats.errors.Error, TimeoutError) as error:
            cause = found[-1] if isinstance(error, nats.errors.NoServersError) and found else error
            reasons.append(f"{server}: {reason_of(cause)}")
            found.clear()
    raise StartFailedError(f"no server of the stream can be used: {'; '.join(reasons)}")


async def _create(address: NatsAddress, config: StreamConfig) -> Description:
    client = await _connected(address)
    try:
        jetstream = client.jetstream()
        try:
            await jetstream.stream_info(address.name)
        except nats.js.errors.NotFoundError:
            pass
        else:
            raise ConfigError(f"there is a stream {address.name} already; it was not changed")
        info = await jetstream.add_stream(config)
        _check_servers(client)
        return _described(info, client.max_payload)
    except nats.js.errors.APIError as error:
        raise ConfigError(f"the servers refuse the stream: {error.description}") from None
    except nats.errors.Error as error:
        raise StartFailedError(f"the servers did not answer: {type(error).__name__}") from None
    finally:
        await client.close()


async def _describe(address: NatsAddress) -> Description:
    client = await _connected(address)
    try:
        _check_servers(client)
        info = await client.jetstream().stream_info(address.name)
    except nats.js.errors.NotFoundError:
        raise ConfigError(
            f"there is no stream {address.name}: `perstack-stored stream create` makes one"
        ) from None
    except nats.js.errors.APIError as error:
        raise StartFailedError(f"the stream can't be described: {error.description}") from None
    except nats.errors.Error as error:
        raise StartFailedError(f"the servers did not answer: {type(error).__name__}") from None
    finally:
        await client.close()
    faults = faults_of(info.config)
    if faults:
        raise ConfigError(f"the stream {address.name} is not usable: {_joined(faults)}")
    return _described(info, client.max_payload)


def _check_servers(client: Client) -> None:
    """Refuse servers whose messages are too small.

    Raises:
        ConfigError: they are.
    """
    if client.max_payload < MESSAGE_BYTES_LEAST:
        raise ConfigError(
            f"the servers take messages of {client.max_payload} bytes: set max_payload in their configuration"
            f" to {MESSAGE_BYTES_LEAST} at least"
        )


def _joined(sentences: Sequence[str]) -> str:
    return "; ".join(sentences)


def _described(info: StreamInfo, message_bytes_max: int) -> Description:
    metadata = info.config.metadata or {}
    is_atomic = bool(info.config.allow_atomic)  # older streams don't have it
    return Description(
        store=bytes.fromhex(metadata["perstack-store"]),
        stream=bytes.fromhex(metadata["perstack-stream"]),
        replicas=info.config.num_replicas or 1,
        first=info.state.first_seq,
        last=info.state.last_seq,
        message_bytes_max=max(message_bytes_max, PIECES_MAX * PIECE_BYTES if is_atomic else 0),
        sessions_max=int(metadata["perstack-sessions-max"]),
        remembered_records=int(metadata["perstack-remembered-records"]),
        guard_seconds=int(metadata["perstack-guard-seconds"]),
    )
