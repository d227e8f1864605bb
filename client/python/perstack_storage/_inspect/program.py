"""The program: binds a socket of loopback, says its address, and serves until it is stopped."""

import asyncio
import contextlib
import logging
import os
import re
import resource
import secrets
import signal
import socket
import stat
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple

import uvicorn

from perstack_storage import AsyncClient
from perstack_storage._inspect import limits
from perstack_storage._inspect.gateway import Gateway
from perstack_storage._inspect.log_lines import bound_lines
from perstack_storage._inspect.page import NOT_BUILT, built_page

TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
_RULE = "16 to 200 letters, digits, _ or -"
_BACKLOG = 512
_HEAD_BYTES_MAX = 64 << 10
_STOP_S = 2
_LOOK_S = 0.1
"""How often the program looks for a signal."""
_START_LOOK_S = 0.01
"""How often it looks whether it serves."""
_DESCRIPTORS = 2 * limits.CONNECTIONS_MAX
_LOOPBACK = "127.0.0.1"


class NotStarted(Exception):  # noqa: N818 - an answer to the person, not a fault
    """It can't be served: the port is taken, or the token can't be used."""


class Options(NamedTuple):
    """How to serve.

    Attributes:
        port: of loopback; None takes the usual one, or a free one where that is taken.
        token_file: where the token stands; None makes a new one.
        names: of this host, as a reverse proxy has it, with a port where it is not usual.
        open_browser: whether to open the page in a browser.
    """

    port: int | None = None
    token_file: str | None = None
    names: Sequence[str] = ()
    open_browser: bool = False


class _Server(uvicorn.Server):
    """Leaves signals to the program: uvicorn's second Ctrl-C breaks the stop off with a traceback."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(client: Callable[[], AsyncClient], options: Options, say: Callable[[str], None]) -> None:
    """Serve until a signal; `say` is called with the address once it can be asked.

    Raises:
        NotStarted: it can't be served.
        KeyboardInterrupt: SIGINT has stopped it.
    """
    token = _token(options.token_file)
    _make_room()
    listener = _listener(options.port)
    port = listener.getsockname()[1]
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    gateway = Gateway(client(), token, port, options.names)
    config = uvicorn.Config(
        gateway.app, lifespan="on", access_log=False, log_level="warning", server_header=False,
        date_header=False, proxy_headers=False, limit_concurrency=limits.CONNECTIONS_MAX,
        h11_max_incomplete_event_size=_HEAD_BYTES_MAX, timeout_graceful_shutdown=_STOP_S, ws="none",
        http="h11", loop="asyncio",
    )  # fmt: skip
    bound_lines()
    server = _Server(config)
    address = f"http://{_LOOPBACK}:{port}/?token={token}"

    def announce() -> None:
        say(address)
        if built_page() is None:
            say(NOT_BUILT.strip())
        if options.open_browser:
            webbrowser.open(address)

    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with listener:
        asyncio.run(_run(server, gateway, listener, announce))
    if signal.SIGINT in came:
        raise KeyboardInterrupt


async def _run(
    server: uvicorn.Server, gateway: Gateway, listener: socket.socket, announce: Callable[[], None]
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.wait([serving], timeout=_START_LOOK_S)
    if server.started:  # a signal from here on is a clean stop
        await asyncio.to_thread(announce)
    while not server.should_exit and not serving.done():
        await asyncio.wait([serving], timeout=_LOOK_S)
    gateway.close()  # who listens to a stream would hold up the stop
    await serving


def _token(path: str | None) -> str:
    if path is None:
        return secrets.token_urlsafe(24)
    try:
        with open(path, encoding="ascii") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and os.fstat(file.fileno()).st_mode & 0o007:
                raise NotStarted(f"others may read {path}: its mode should be 0600")
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotStarted(f"the token can't be read: {error}") from error
    if not TOKEN.fullmatch(token):
        raise NotStarted(f"the token in {path} must have {_RULE}")
    return token


def _listener(port: int | None) -> socket.socket:
    tried = [limits.PORT_DEFAULT, 0] if port is None else [port]
    for number in tried:
        # Only where the protocol is named does asyncio set TCP_NODELAY; else small answers wait 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_LOOPBACK, number))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if number == tried[-1]:
                raise NotStarted(f"port {number} can't be served: {error.strerror}") from error
        else:
            return listener
    raise AssertionError("one of the ports is the last one")


def _make_room() -> None:
    """Raise the limit of descriptors, as each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
