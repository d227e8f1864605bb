"""The place of a mirror: `s3://bucket/prefix`, and the endpoint of a server that is not AWS.

Both come from settings and show up in logs, so neither may hold a secret. An error does not repeat them.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from perstack_stored.errors import ConfigError

SCHEME = "s3://"
HTTP_VARIABLE = "AWS_ALLOW_HTTP"
PREFIX_CHARS_MAX = 512
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# What S3 calls safe characters: no percent sign, question mark, at sign or colon.
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/-]*")


class MirrorUrl(NamedTuple):
    """A bucket, and a prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}"


def is_mirror_url(text: str) -> bool:
    """Whether a text names a bucket, and no folder."""
    return text.startswith(SCHEME)


def parse_url(text: str, name: str = "mirror") -> MirrorUrl:
    """The place that a URL names; its prefix gets one slash at its end.

    Raises:
        ConfigError: it is no such URL, or holds more than bucket and prefix.
    """
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    prefix = prefix.strip("/")
    if (
        not text.startswith(SCHEME)
        or _BUCKET.fullmatch(bucket) is None
        or _PREFIX.fullmatch(prefix) is None
        or len(prefix) > PREFIX_CHARS_MAX
        or not {"", ".", ".."}.isdisjoint(prefix.split("/") if prefix else [])
    ):
        raise ConfigError(
            f"{name} must be s3://BUCKET/PREFIX, the prefix of letters, digits and !_.*'()-/ only, at most"
            f" {PREFIX_CHARS_MAX} characters; credentials don't belong in it"
        )
    return MirrorUrl(bucket, f"{prefix}/" if prefix else "")


def check_endpoint(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The endpoint of an S3 server, such as https://s3.example:9000; "" stays.

    Raises:
        ConfigError: it is no such address, or is without TLS and not on loopback.
    """
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or "@" in parts.netloc
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise ConfigError(
            "mirror-endpoint must be https://HOST or https://HOST:PORT; credentials don't belong in it"
        )
    if parts.scheme == "http" and not _is_loopback(host) and not _is_on(environment.get(HTTP_VARIABLE, "")):
        raise ConfigError(
            f"mirror-endpoint must be https: records would cross the network unencrypted. If that is wanted,"
            f" set {HTTP_VARIABLE}=true"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_on(text: str) -> bool:
    return text.strip().lower() in {"1", "true", "yes", "on"}
