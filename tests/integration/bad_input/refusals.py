"""A daemon that is given nothing but what it must refuse: its bounds, and how it refuses."""

from typing import Any

from tests.helpers.raw_client import MIB, Raw

FRAME_BYTES_MAX = 256 * 1024
VALUE_BYTES_MAX = MIB
S = "5e" * 16


def refused(
    raw: Raw, code: str, field: str | None, op: str, body: bytes | object = b"", **header: Any
) -> None:
    """The request is refused with this code and a sentence that names the field."""
    error = raw.ask(op, body, **header).error
    assert (error["code"], error.get("field")) == (code, field)
    assert error["retryable"] is (code == "SEQUENCE_GAP")
    assert len(error["message"]) > 10
    if field is not None:
        assert field in error["message"]
