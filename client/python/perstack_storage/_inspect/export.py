"""A job as one HTML file: the page with its program, and the records of the job, in one document."""

import base64
import hashlib
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.errors import GatewayError
from perstack_storage._inspect.page import Page, built_page
from perstack_storage._inspect.source import Source, Wanted


async def export_job(source: Source, job: str) -> Response:
    """The file, sent as it is read.

    Raises:
        GatewayError: NOT_FOUND: nothing of the job is stored, or the page is not built.
    """
    page = built_page()
    if page is None:
        raise GatewayError("NOT_FOUND", "the page is not built, so it can't be put into a file")
    await source.job(job)  # raises where there is none
    runs = await source.runs(job)
    first = min((run["firstPosition"] for run in runs), default=1)
    last = max((run["lastPosition"] for run in runs), default=0)
    headers = {"content-disposition": 'attachment; filename="job.html"', "cache-control": "no-store"}
    document = _document(source, page, job, (max(0, first - limits.RECORDS_DEFAULT), last))
    return StreamingResponse(document, media_type="text/html; charset=utf-8", headers=headers)


async def _document(source: Source, page: Page, job: str, span: tuple[int, int]) -> AsyncIterator[bytes]:
    policy = f"default-src 'none'; style-src {_hash(page.style)}; script-src {_hash(page.script)}"
    yield (
        b'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        b'<meta http-equiv="content-security-policy" content="%b">'
        b'<meta name="viewport" content="width=device-width, initial-scale=1">'
        b'<title>Job</title><style>%b</style></head><body><div id="app"></div>'
        b'<script id="job" type="application/json">{"job":%b,"records":['
    ) % (policy.encode(), page.style, _harmless(dumps(job)))
    after, last = span
    separator = b"\n"
    while after < last:
        found = await source.records(after, limits.FILE_RECORDS_MAX, Wanted(job), form=slim.for_file)
        for item in found.items:
            yield separator + _harmless(item)
            separator = b",\n"
        after = found.next
    yield b']}</script><script type="module">%b</script></body></html>\n' % page.script


def _harmless(data: bytes) -> bytes:
    """JSON that ends no script: a < stands only in texts, where it may be escaped."""
    return data.replace(b"<", b"\\u003c")


def _hash(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
