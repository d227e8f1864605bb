"""Who may ask: Host, Origin and token of each request are checked before anything else looks at it."""

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits
from perstack_storage._inspect.errors import GatewayError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer. No header of CORS: no other page may read."""
UNAUTHORIZED = (
    "This inspector needs its token. Open the address that `perstack-storectl inspect` has printed, "
    "or send the header `Authorization: Bearer TOKEN`."
)
_SLASHES = "/\\"
_CROSS_SITE = frozenset({"cross-site", "same-site"})


class Guard:
    """Lets a request through to `app` if it comes by one of our names, from our page, with the token."""

    def __init__(self, app: App, token: str, port: int, names: Iterable[str] = ()) -> None:
        """`names` are further names of this host, as of a reverse proxy, with a port if it is unusual."""
        self._app = app
        self._token = token.encode()
        self.cookie = f"perstack-inspect-{port}"
        self._hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")}
        self._hosts |= {name.lower() for name in names}
        self._origins = {f"{scheme}://{host}" for host in self._hosts for scheme in ("http", "https")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            moved = self._check(scope, headers)
        except GatewayError as error:
            await _refuse(scope, send, error)
            return
        if moved is not None:
            await self._set_cookie(send, moved)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_fixed(message["headers"])]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope, headers: list[tuple[bytes, str]]) -> str | None:
        """Raises what is wrong; returns where a browser goes on that came with the token in its address."""
        given: dict[bytes, list[str]] = {}
        for name, value in headers:
            given.setdefault(name, []).append(value)
        hosts = given.get(b"host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise GatewayError("FORBIDDEN", "this name of the host is not served", "host")
        if any(origin.lower() not in self._origins for origin in given.get(b"origin", [])):
            raise GatewayError("FORBIDDEN", "other pages may not ask", "origin")
        site, mode = ("".join(given.get(name, [])) for name in (b"sec-fetch-site", b"sec-fetch-mode"))
        if site in _CROSS_SITE and mode != "navigate":
            raise GatewayError("FORBIDDEN", "other pages may not ask", "sec-fetch-site")
        if len(scope["query_string"]) > limits.QUERY_BYTES_MAX:
            raise GatewayError("TOO_LARGE", f"a query has at most {limits.QUERY_BYTES_MAX} bytes")
        return self._check_token(scope, given)

    def _check_token(self, scope: Scope, given: dict[bytes, list[str]]) -> str | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        in_query = [value for name, value in query if name == "token"]
        tokens = [value[7:] for value in given.get(b"authorization", []) if value[:7].lower() == "bearer "]
        tokens += in_query + self._cookies(given.get(b"cookie", []))
        if not any(hmac.compare_digest(token.encode(errors="replace"), self._token) for token in tokens):
            raise GatewayError("UNAUTHORIZED", UNAUTHORIZED, "token")
        if not in_query:
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        if _is_page(scope["path"]):
            path = scope.get("raw_path", b"/").decode("latin-1")
            # A browser takes a backslash for a slash, and what begins with two of them for another host.
            return f"/{path.lstrip(_SLASHES)}{'?' if rest else ''}{rest}"
        scope["query_string"] = rest.encode()
        return None

    def _cookies(self, headers: list[str]) -> list[str]:
        """The values of our cookie. Those of other programs on this host come along, in any form."""
        pairs = (part.partition("=") for header in headers for part in header.split(";"))
        return [value.strip() for name, _, value in pairs if name.strip() == self.cookie]

    async def _set_cookie(self, send: Send, location: str) -> None:
        cookie = f"{self.cookie}={self._token.decode()}; Path=/; HttpOnly; SameSite=Lax"
        headers = [(b"location", location.encode("latin-1")), (b"set-cookie", cookie.encode("latin-1"))]
        headers.append((b"cache-control", b"no-store"))
        await _send(send, 303, [*headers, *_fixed(headers)], b"")


def _is_page(path: str) -> bool:
    return not path.startswith("/api/")


def _fixed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of every answer, but for those that it has itself."""
    own = {name.lower() for name, _ in headers}
    return [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]


async def _refuse(scope: Scope, send: Send, error: GatewayError) -> None:
    kind, body = b"application/json", dumps(error.as_json())
    if _is_page(scope["path"]):
        kind, body = b"text/plain; charset=utf-8", f"{error.message}\n".encode()
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    if error.status == 401:  # noqa: PLR2004 - unauthorized
        headers.append((b"www-authenticate", b"Bearer"))
    body = b"" if scope["method"] == "HEAD" else body
    await _send(send, error.status, [*headers, *_fixed(headers)], body)


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
