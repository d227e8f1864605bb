"""Sends spans to a receiver of OTLP: batches, retries, and a search for the span that a receiver refuses."""

import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from perstack_storage._core.jsonio import loads
from perstack_storage._otlp import protobuf, semconv
from perstack_storage._otlp.spans import Span
from perstack_storage._version import __version__

SPANS_MAX = 512
"""Spans of a request."""
_PATH = "/v1/traces"
_FORM = "application/x-protobuf"
_SCOPE = ("perstack-stored", __version__)
_TIMEOUT_S = 30.0
_WAIT_MIN_S, _WAIT_MAX_S = 0.5, 30.0
_AGAIN = frozenset({408, 429, 502, 503, 504})
_ANSWER_BYTES_MAX = 1 << 20
_TAKES_NONE = frozenset({401, 403, 404, 405, 415})


class NotDelivered(Exception):  # noqa: N818 - an answer to the person, not a fault
    """The receiver takes none of it: it has another path, or wants other headers."""


class Receiver(NamedTuple):
    """Where spans go.

    Attributes:
        url: of the receiver; `/v1/traces` is added where it is missing.
        headers: of each request, such as one that authorizes it.
    """

    url: str
    headers: dict[str, str]
    service: str = "perstack"

    @property
    def address(self) -> str:
        """The whole address."""
        return self.url if self.url.rstrip("/").endswith(_PATH) else self.url.rstrip("/") + _PATH


def checked_url(text: str) -> str:
    """An address of HTTP without user and password.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("not http:// or https://, or with a user in it")
    return text


def headers_of(text: str) -> dict[str, str]:
    """Headers as OTEL_EXPORTER_OTLP_HEADERS has them: NAME=VALUE,NAME=VALUE, percent-encoded.

    Raises:
        ValueError: they are none.
    """
    headers = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = item.partition("=")
        value = unquote(value.strip())
        if not sign or not name.strip().isascii() or not value.isprintable():
            raise ValueError("OTEL_EXPORTER_OTLP_HEADERS must be NAME=VALUE,NAME=VALUE")
        headers[name.strip()] = value
    return headers


class Delivery:
    """Sends spans, and waits as long as the receiver is away."""

    def __init__(self, receiver: Receiver, store: str, say: Callable[[str], None]) -> None:
        self._receiver = receiver
        self._resource: dict[str, str | int] = {semconv.SERVICE: receiver.service, semconv.STORE: store}
        self._say = say
        self._opener = urllib.request.build_opener(_NoRedirects())
        self.sent = self.refused = 0

    def send(self, spans: list[Span]) -> None:
        """Send spans; returns when each is taken or refused.

        Raises:
            NotDelivered: nothing can be delivered there.
        """
        for first in range(0, len(spans), SPANS_MAX):
            self._send(spans[first : first + SPANS_MAX])

    def _send(self, spans: list[Span]) -> None:
        """Send a batch; where it is refused, its halves, so that one bad span does not take others along."""
        status = self._post(protobuf.request(spans, self._resource, _SCOPE))
        if status is None:
            self.sent += len(spans)
        elif status in _TAKES_NONE:
            raise NotDelivered(f"{self._receiver.address} answers {status}")
        elif len(spans) == 1:
            self.refused += 1
            self._say(f"the receiver refuses span {spans[0].id} of trace {spans[0].trace}: {status}")
        else:
            middle = len(spans) // 2
            self._send(spans[:middle])
            self._send(spans[middle:])

    def _post(self, body: bytes) -> int | None:
        """Returns the status of a refusal; None where all were taken."""
        wait_s = _WAIT_MIN_S
        said = False
        while True:
            status, after_s = self._once(body)
            if status is None or (status not in _AGAIN and status != 0):
                return status
            if not said:
                self._say(f"{self._receiver.address} does not take spans now; trying again")
                said = True
            time.sleep(after_s or wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            wait_s = min(wait_s * 2, _WAIT_MAX_S)

    def _once(self, body: bytes) -> tuple[int | None, float]:
        """One try: None, a status, or 0 where nobody answered; and how long to wait."""
        headers = {**self._receiver.headers, "content-type": _FORM, "accept": f"{_FORM}, application/json"}
        request = urllib.request.Request(self._receiver.address, body, headers)  # noqa: S310 - http or https
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                self._note_partial(answer.read(_ANSWER_BYTES_MAX), answer.headers.get_content_type())
                return None, 0
        except urllib.error.HTTPError as error:
            with error:
                after = error.headers.get("retry-after", "")
                return error.code, min(float(after), _WAIT_MAX_S) if after.isdecimal() else 0
        except OSError:
            return 0, 0

    def _note_partial(self, body: bytes, form: str) -> None:
        """Says what a receiver has not taken of a batch: it may not be sent again."""
        number, message = _rejected_in_json(body) if form == "application/json" else protobuf.rejected(body)
        if number > 0:
            self.refused += number
            self._say(f"the receiver refuses {number} spans: {message[:200]}")


def _rejected_in_json(body: bytes) -> tuple[int, str]:
    try:
        partial: Any = loads(body)["partialSuccess"]
        return int(partial.get("rejectedSpans", 0)), str(partial.get("errorMessage", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0, ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Headers that authorize must not go to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the status is the answer."""
        return
