"""Answers in JSON, with an ETag of their bytes: who has them already gets 304."""

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect.errors import RETRY_AFTER_S, GatewayError
from perstack_storage._inspect.source import Listing, Records

JSON = "application/json"


def tagged(request: Request, body: bytes, media_type: str, cache: str = "no-cache") -> Response:
    """An answer with its ETag, or 304."""
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    headers = {"etag": tag, "cache-control": cache}
    asked = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in asked or asked == ["*"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def json_answer(request: Request, body: bytes) -> Response:
    """A value in JSON."""
    return tagged(request, body, JSON)


def listing_answer(request: Request, listing: Listing) -> Response:
    """A page; its cursor is JSON in a text."""
    return json_answer(request, _page(listing.items, _cursor(listing.next), listing.position))


def records_answer(request: Request, records: Records) -> Response:
    """Records, and the position to go on from."""
    items = b"[" + b",".join(records.items) + b"]"
    end = b"true" if records.at_end else b"false"
    return json_answer(request, b'{"next":%d,"end":%b,"items":%b}' % (records.next, end, items))


def error_answer(error: GatewayError) -> Response:
    """An error with its code and field."""
    headers = {"cache-control": "no-store"}
    if error.status == 503:  # noqa: PLR2004 - unavailable
        headers["retry-after"] = str(RETRY_AFTER_S)
    return Response(dumps(error.as_json()), error.status, headers, JSON)


def _page(items: bytes, cursor: bytes, position: int | None) -> bytes:
    return b'{"position":%b,"next":%b,"items":%b}' % (dumps(position), cursor, items)


def _cursor(after: Any) -> bytes:
    return b"null" if after is None else dumps(dumps(after).decode())
