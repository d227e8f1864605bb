"""The application: guard, routes, page, and what an error is answered with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Mounted

from perstack_storage import AsyncClient
from perstack_storage._core.errors import StorageError
from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits
from perstack_storage._inspect.answers import error_answer, json_answer, tagged
from perstack_storage._inspect.errors import GatewayError, of_storage
from perstack_storage._inspect.guard import Guard
from perstack_storage._inspect.openapi import document
from perstack_storage._inspect.page import NOT_BUILT, built_page
from perstack_storage._inspect.parameters import checked
from perstack_storage._inspect.routes import ROUTES, Asked, Readers, Route
from perstack_storage._inspect.run_tools import RunTools
from perstack_storage._inspect.run_usage import RunUsage
from perstack_storage._inspect.source import Source
from perstack_storage._inspect.streams import Streams

_CODES = {404: ("NOT_FOUND", "there is no such path"), 405: ("METHOD_NOT_ALLOWED", "only GET and HEAD")}


class Gateway:
    """The application for one daemon; `app` serves it, `close` ends its streams."""

    def __init__(self, client: AsyncClient, token: str, port: int, names: Iterable[str] = ()) -> None:
        self._client = client
        self._source = Source(client)
        self._streams = Streams(self._source)
        usage, tools = RunUsage(self._source), RunTools(self._source)
        self._readers = Readers(self._source, self._streams, usage, tools)
        self._room = asyncio.Semaphore(limits.REQUESTS_MAX)
        self._description = dumps(document())
        mounted = [Mounted(route.path, self._endpoint(route), methods=["GET"]) for route in ROUTES]
        app = Starlette(
            routes=[
                *mounted,
                Mounted("/api/openapi.json", self._openapi, methods=["GET"]),
                Mounted("/{path:path}", self._page, methods=["GET"]),
            ],
            lifespan=self._lifespan,
            exception_handlers={
                GatewayError: _on_gateway_error,
                StorageError: _on_storage_error,
                HTTPException: _on_http_error,
                Exception: _on_error,
            },
        )
        self.app = Guard(app, token, port, names)

    def close(self) -> None:
        """End the streams, so that a stop need not wait for those who listen."""
        self._streams.close()

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._streams.close()
        await self._client.close()

    def _endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            given = [*request.path_params.items(), *request.query_params.multi_items()]
            asked = Asked(self._source, self._readers, request, checked(route.parameters, given))
            if route.shape == "Stream":
                return await route.answer(asked)
            async with self._room:
                return await route.answer(asked)

        return answer

    async def _openapi(self, request: Request) -> Response:
        return json_answer(request, self._description)

    async def _page(self, request: Request) -> Response:
        """A file of the page; for any other path its document, which knows what to show there."""
        path = request.path_params["path"]
        if path.startswith("api/"):
            raise GatewayError("NOT_FOUND", "there is no such path")
        page = built_page()
        if page is None:
            return Response(NOT_BUILT, 503, media_type="text/plain")
        files = {
            "page.js": (page.script, "text/javascript"),
            "page.css": (page.style, "text/css"),
            "icon.svg": (page.icon, "image/svg+xml"),
        }
        body, kind = files.get(path, (page.document, "text/html; charset=utf-8"))
        return tagged(request, body, kind)


async def _on_gateway_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return error_answer(error)


async def _on_storage_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StorageError)
    return error_answer(of_storage(error))


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, message = _CODES.get(error.status_code, ("BAD_REQUEST", "this is no request of the gateway"))
    answer = error_answer(GatewayError(code, message))
    answer.headers.update(error.headers or {})
    return answer


async def _on_error(_: Request, error: Exception) -> Response:
    """A fault of this program: uvicorn logs it; an answer tells nothing of what was read."""
    return error_answer(GatewayError("INTERNAL", f"a fault of the inspector: {type(error).__name__}"))
