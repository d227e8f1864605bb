"""A connection to servers of NATS: who the daemon is there, and TLS that is never left out.

The file of the setting nats-credentials is a `.creds` file of NATS, or TOML with some of

    user, password        or token; or seed, that of a user's key; or creds, a `.creds` file
    ca                    file with the certificates that sign those of the servers
    certificate, key      files with the daemon's own, for servers that ask for them
"""

import asyncio
import os
import ssl
import stat
import tomllib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from perstack_storage.protocol import shell_word
from perstack_stored.errors import ConfigError

from .nats_keys import Credentials, UserKey, parse_creds, parse_seed

CONNECT_SECONDS = 2
_CLOSE_SECONDS = 1.0
CREDENTIALS_BYTES_MAX = 64 << 10
_CREDS_MARK = "BEGIN NATS USER JWT"
_SECRETS = ("password", "token", "seed", "creds")  # one of them at most
_KEYS = frozenset({"user", *_SECRETS, "ca", "certificate", "key"})

_Loaded = TypeVar("_Loaded")
OnError = Callable[[Exception], Coroutine[Any, Any, None]]
Receive = Callable[[bytes, bytes, bytes], None]
"""Takes a message: its subject, its headers as they came (empty without any), its data."""


class NoTlsError(nats.errors.Error):
    """A server offers no TLS, and the address asks for it. Nothing was sent to it."""

    def __str__(self) -> str:
        return "the server offers no TLS"


class Connection(Client):
    """A client that says nothing to a server without TLS where the address asks for TLS.

    The library's own goes on in plain text with a server that offers none, whatever the address says.
    """

    needs_tls = False
    public_key: Callable[[], str] | None = None
    """Gives the user's public key, which goes beside a signature."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}

    async def listen(self, subject: str, receive: Receive) -> None:
        """Let `receive` have the messages of a subject, as soon as they are parsed.

        The library's own subscriptions queue each message for a task, and decode all of its headers: two
        thirds of the processor time that a message of the log took in this thread.
        """
        subscription = await self.subscribe(subject, cb=_pass_over)
        self._receivers[subscription._id] = receive

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            receive(subject, headers or b"", data)
        except Exception as error:  # noqa: BLE001 - the library would stop reading; this is what it does with a callback's
            await self._error_cb(error)

    def _connect_command(self) -> bytes:
        # Called after the server's greeting and the TLS handshake, if it asked for one; before any secret.
        if self.needs_tls and not self._server_info.get("tls_required"):
            raise NoTlsError
        if self.public_key is not None:
            self._public_nkey = self.public_key()
        return super()._connect_command()


def options_of(servers: tuple[str, ...], credentials: str) -> dict[str, Any]:
    """Arguments for `Client.connect`.

    Args:
        servers: URLs; all have one scheme.
        credentials: path of the file, or empty.

    Raises:
        ConfigError: the file can't be used. The message holds nothing of what is in it.
    """
    options: dict[str, Any] = {"servers": list(servers), "connect_timeout": CONNECT_SECONDS}
    facts = _read(credentials) if credentials else {}
    options |= _identity(credentials, facts)
    if servers[0].startswith("tls:") or "ca" in facts or "certificate" in facts:
        options["tls"] = _context(credentials, facts)
    return options


async def connect(options: dict[str, Any], on_error: OnError, **more: Any) -> Connection:
    """Connect.

    Raises:
        OSError, nats.errors.Error, TimeoutError: it fails; `reason_of` says why.
    """
    client = Connection()
    client.needs_tls = "tls" in options
    client.public_key = options.get("public_key")
    given = {name: value for name, value in options.items() if name != "public_key"}
    try:
        # Subjects are the daemon's own words: their check, character by character, would cost as much as
        # sending them. A daemon needs no echo of what it tells the others.
        await client.connect(**given, **more, error_cb=on_error, skip_subject_validation=True, no_echo=True)
    except BaseException:
        # The library waits without end for the close of a connection whose TLS handshake failed.
        await asyncio.wait({asyncio.ensure_future(client.close())}, timeout=_CLOSE_SECONDS)
        raise
    return client


async def _pass_over(_message: Msg) -> None:
    """Take a message that came before its receiver was known: it is asked for again, as a lost one is."""


def reason_of(error: Exception) -> str:
    """What is wrong with a connection, in words without secrets."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or type(error).__name__}"
    if "Authorization Violation" in str(error):
        return "it refuses the user: nats-credentials names none, or one that it does not know"
    if isinstance(error, NoTlsError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error) is nats.errors.Error:  # as a server sent it: a subject that it does not allow, say
        return str(error)[:200]
    return type(error).__name__


def _read(path: str) -> dict[str, str]:
    text, is_open = _text_of(path)
    if _CREDS_MARK in text:
        return {"creds": path}
    try:
        facts = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"nats-credentials: {path} is neither a .creds file nor TOML") from None
    if set(facts) - _KEYS or not all(isinstance(value, str) for value in facts.values()):
        raise ConfigError(f"nats-credentials: {path} may have these texts: {', '.join(sorted(_KEYS))}")
    if ("user" in facts) != ("password" in facts) or sum(name in facts for name in _SECRETS) > 1:
        raise ConfigError(f"nats-credentials: {path} needs user and password, or token, or seed, or creds")
    if ("certificate" in facts) != ("key" in facts):
        raise ConfigError(f"nats-credentials: {path} needs certificate and key together")
    if is_open and any(name in facts for name in _SECRETS):
        raise _too_open(path)
    return facts


def _identity(path: str, facts: dict[str, str]) -> dict[str, Any]:
    """Options of who the daemon is. The library asks for each at each of its connections: a file may change.

    Raises:
        ConfigError: a key can't be used.
    """

    def fact(name: str) -> str:
        found = _again(_read, path)
        if name not in found:
            raise nats.errors.Error(f"nats-credentials: {path} had {name} at the start: it needs a restart")
        return found[name]

    def key() -> UserKey:
        return _again(parse_seed, fact("seed"))

    def creds() -> Credentials:
        return _again(_load_creds, fact("creds"))

    def sign(nonce: str) -> bytes:
        return (key() if "seed" in facts else creds().key).sign(nonce)

    if "creds" in facts:
        _load_creds(facts["creds"])
        return {"user_jwt_cb": lambda: creds().jwt, "signature_cb": sign}
    if "seed" in facts:
        with _naming(path):
            parse_seed(facts["seed"])
        return {"public_key": lambda: key().public, "signature_cb": sign}
    return {name: partial(fact, name) for name in ("user", "password", "token") if name in facts}


def _load_creds(path: str) -> Credentials:
    """Load a `.creds` file.

    Raises:
        ConfigError: it can't be used.
    """
    text, is_open = _text_of(path)
    with _naming(path):
        found = parse_creds(text)
    if is_open:
        raise _too_open(path)
    return found


def _again(load: Callable[[str], _Loaded], text: str) -> _Loaded:
    """Load something for the library: it goes on trying after an error of its own."""
    try:
        return load(text)
    except ConfigError as error:
        raise nats.errors.Error(str(error)) from None


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name the file in an error."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"nats-credentials: {path}: {error}") from None


def _too_open(path: str) -> ConfigError:
    return ConfigError(f"nats-credentials: others may read {path}; deny it: chmod o= {shell_word(path)}")


def _text_of(path: str) -> tuple[str, bool]:
    """The text of a file, and whether any user may read it."""
    try:
        with Path(path).open("rb") as file:
            is_open = bool(os.fstat(file.fileno()).st_mode & stat.S_IRWXO)
            data = file.read(CREDENTIALS_BYTES_MAX + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"nats-credentials: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"nats-credentials: {path} is no text") from None
    if len(data) > CREDENTIALS_BYTES_MAX:
        raise ConfigError(f"nats-credentials: {path} has more than {CREDENTIALS_BYTES_MAX} bytes")
    return text, is_open


def _context(credentials: str, facts: dict[str, str]) -> ssl.SSLContext:
    what = facts.get("ca", "")
    try:
        context = ssl.create_default_context(cafile=what or None)
        if "certificate" in facts:
            what = facts["certificate"]
            context.load_cert_chain(what, facts["key"], password=_no_password)
    except OSError as error:  # that of ssl is one, too
        reason = (
            error.strerror if not isinstance(error, ssl.SSLError) else "it holds no usable certificate or key"
        )
        raise ConfigError(f"nats-credentials: {credentials} names {what}: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Answer in place of the terminal, which would be asked for a key's password."""
    return ""
