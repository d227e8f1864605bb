"""The HTTP port of monitoring: /metrics, /healthz and /readyz. It has threads of its own."""

import contextlib
import http.server
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from perstack_stored.errors import ConfigError, start_error

from .health import Health

_CONNECTIONS_MAX = 8
_SILENCE_SECONDS = 5.0
_WHOLE_SECONDS = 10.0  # maximum duration of a connection
_RENDERING_PAUSE_SECONDS = 0.05  # between two: metrics are made at the cost of the serving loop
_PORT_MAX = 65_535

_log = structlog.get_logger()


def parse_address(text: str) -> tuple[str, int]:
    """Parse host and port of `metrics-bind`.

    Raises:
        ConfigError: it is not a loopback address and a port.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
    except ValueError:
        raise ConfigError(
            f"metrics-bind must be an address and a port, such as 127.0.0.1:9464: {text}"
        ) from None
    if not address.is_loopback:
        raise ConfigError(
            f"metrics-bind must be a loopback address: figures are for this machine only, not {text}"
        )
    if not 0 <= number <= _PORT_MAX:
        raise ConfigError(f"metrics-bind must end with a port from 0 to {_PORT_MAX}: {text}")
    return str(address), number


class MetricsServer:
    """Serves HTTP until `stop`."""

    def __init__(
        self,
        address: str,
        collector: Collector,
        health: Health,
    ) -> None:
        """Bind the port.

        Args:
            address: value of `metrics-bind`.
            collector: collects the metrics.
            health: state of the daemon.

        Raises:
            ConfigError: the address can't be bound.
            StartFailedError: likewise, for a reason that may pass.
        """
        host, port = parse_address(address)
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        try:
            self._server = _Server(
                (host, port), registry, {"/healthz": health.stuck, "/readyz": health.unready}
            )
        except OSError as error:
            raise start_error(f"can't bind metrics-bind {address}", error) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="exposition", daemon=True
        )

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()
        _log.info("metrics_ready", url=f"http://{self._server.host_text}:{self.port}/metrics")

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], registry: CollectorRegistry, checks: dict[str, Callable[[], str]]
    ) -> None:
        self.registry = registry
        self.checks = checks
        self._places = _Places()
        self._rendering = threading.Lock()
        is_v6 = ":" in address[0]
        self.address_family = socket.AF_INET6 if is_v6 else socket.AF_INET
        self.host_text = f"[{address[0]}]" if is_v6 else address[0]
        super().__init__(address, _Handler)

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve in a thread; with too many threads the connection is closed."""
        if isinstance(request, socket.socket) and self._places.take(request):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.give_back(request)

    def service_actions(self) -> None:
        """Called a few times a second."""
        self._places.end_late_ones()

    def render(self, request: socket.socket, make: Callable[[], bytes]) -> bytes:
        """Make an answer; one at a time, with a pause between two."""
        with self._places.working(request), self._rendering:
            try:
                return make()
            finally:
                time.sleep(_RENDERING_PAUSE_SECONDS)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Log a fault of the daemon, but not a client that has left or was ended."""
        if not isinstance(sys.exception(), OSError):
            _log.warning("metrics_failed", exc_info=True)


class _Places:
    """Open connections. A newcomer takes the place of the one that has been idle longest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}  # oldest first
        self._working: set[socket.socket] = set()

    def take(self, connection: socket.socket) -> bool:
        """Return whether there is a place for a connection."""
        with self._lock:
            if len(self._since) >= _CONNECTIONS_MAX:
                idle = next((one for one in self._since if one not in self._working), None)
                if idle is None:
                    return False
                self._end(idle)
            self._since[connection] = time.monotonic()
        return True

    def give_back(self, connection: object) -> None:
        """Remove a closed connection."""
        with self._lock:
            self._since.pop(connection, None)  # type: ignore[call-overload]

    @contextlib.contextmanager
    def working(self, connection: socket.socket) -> Iterator[None]:
        """Context in which the connection waits for the daemon, not for its client."""
        with self._lock:
            self._working.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._working.discard(connection)

    def end_late_ones(self) -> None:
        """End connections that take too long: a client may read or send a byte now and then."""
        with self._lock:
            late = time.monotonic() - _WHOLE_SECONDS
            for connection in [one for one, since in self._since.items() if since < late]:
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        del self._since[connection]
        with contextlib.suppress(OSError):  # its thread sees the end, and closes it
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE_SECONDS
    server_version = "perstack-stored"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            body = self.server.render(self.connection, lambda: encode(self.server.registry))
            self._answer(HTTPStatus.OK, content_type, body)
        elif path in self.server.checks:
            reason = self.server.checks[path]()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            self._answer(status, "text/plain; charset=utf-8", f"{reason or 'ok'}\n".encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics, /healthz and /readyz\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log no scrapes."""
