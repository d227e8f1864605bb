"""Values that break a rule are refused, and their field is named."""

import json

import pytest

from tests.helpers.raw_client import USAGE, VALUES, Raw, checkpoint, event, job, setting, without
from tests.integration.bad_input.refusals import refused

_GOOD_EVENT = json.dumps(event()).encode()


@pytest.mark.parametrize("op", list(VALUES))
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nothing",
        b"[]",
        b"null",
        b"1",
        b'"text"',
        b"{'id': 1}",
        b'{"x": 1,}',
        b'{"x": 01}',
        b'{"id": "\x01"}',
        b'{"id": "\\x"}',
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b'{"x": "\xff"}',
        b'{"x": "\xed\xa0\x80"}',
        b'{"x": "\xc0\x80"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"\x00",
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else value,
)
def test_a_body_that_is_not_one_json_object_in_utf_8_is_refused(raw: Raw, op: str, body: bytes) -> None:
    """BAD_JSON, for each kind of value."""
    refused(raw, "BAD_JSON", None, op, body)


@pytest.mark.parametrize(
    "body",
    [_GOOD_EVENT + b"x", b"\xef\xbb\xbf" + _GOOD_EVENT, b"[" + _GOOD_EVENT + b"]", _GOOD_EVENT * 2],
    ids=["text behind", "byte order mark", "array", "two"],
)
def test_a_good_event_in_bad_wrapping_is_refused(raw: Raw, body: bytes) -> None:
    """The value must be the object and nothing else."""
    refused(raw, "BAD_JSON", None, "storeEvent", body)


def test_bytes_that_are_not_utf_8_are_refused_in_skipped_fields(raw: Raw) -> None:
    """The typed decoder skips such a field unread, so a check of its own stands before it."""
    refused(raw, "BAD_JSON", None, "storeEvent", _GOOD_EVENT[:-1] + b', "x": ["\xff"]}')


_BAD_IDS = [
    "", ".", "..", "a/b", "../../x", "/", "a\\b", "a\u0000b", "a\nb", "a\u007fb", "a\u0085b", "a" * 201,
    "a" * 300, "é" * 101, "\ud800",
]  # fmt: skip
_BAD_TYPES = [5, None, True, ["a"], {"a": 1}]
_ID_FIELDS = [
    ("storeJob", "id"),
    ("storeCheckpoint", "id"),
    ("storeCheckpoint", "jobId"),
    ("storeCheckpoint", "runId"),
    ("storeEvent", "id"),
    ("storeEvent", "jobId"),
    ("storeEvent", "runId"),
    ("storeRunSetting", "jobId"),
    ("storeRunSetting", "runId"),
]


@pytest.mark.parametrize(("op", "field"), _ID_FIELDS)
@pytest.mark.parametrize("id", [*_BAD_IDS, *_BAD_TYPES], ids=lambda value: ascii(value)[:24])
def test_an_id_that_can_not_name_a_file_is_refused(raw: Raw, op: str, field: str, id: object) -> None:
    """Empty, dots, separators, control characters, more than 200 bytes, a lone surrogate, no string."""
    refused(raw, "BAD_VALUE", field, op, {**VALUES[op](), field: id})


@pytest.mark.parametrize("type", [*_BAD_IDS, "a.b", "a.json", "a" * 101, "é" * 51, *_BAD_TYPES], ids=ascii)
def test_an_event_type_that_can_not_name_a_file_is_refused(raw: Raw, type: object) -> None:
    """As an id, but 100 bytes and no dot, at which the reference's reader cuts."""
    refused(raw, "BAD_VALUE", "type", "storeEvent", event(type=type))


_NUMBERS = [
    ("storeJob", "startedAt", False),
    ("storeJob", "totalSteps", True),
    ("storeCheckpoint", "stepNumber", True),
    ("storeEvent", "timestamp", False),
    ("storeEvent", "stepNumber", True),
    ("storeRunSetting", "startedAt", False),
    ("storeRunSetting", "updatedAt", False),
]


@pytest.mark.parametrize(("op", "field", "whole"), _NUMBERS)
@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-0.5",
        "9007199254740992",
        "1e16",
        "1e400",
        "-1e400",
        "1" * 30,
        "1" * 400,
        "null",
        "true",
        '"1"',
        "[]",
    ],
    ids=lambda text: text[:20],
)
def test_a_time_or_step_out_of_range_is_refused(
    raw: Raw, op: str, field: str, whole: bool, text: str
) -> None:
    """Numbers from 0 to 2^53-1; true and "1" are no numbers."""
    value = VALUES[op](**{field: "HERE"})
    refused(raw, "BAD_VALUE", field, op, json.dumps(value).replace('"HERE"', text).encode())


@pytest.mark.parametrize(("op", "field"), [(op, field) for op, field, whole in _NUMBERS if whole])
def test_a_step_with_a_fraction_is_refused(raw: Raw, op: str, field: str) -> None:
    """Steps are whole numbers."""
    refused(raw, "BAD_VALUE", field, op, VALUES[op](**{field: 1.5}))


_REQUIRED = [
    *[("storeJob", (name,)) for name in job()],
    *[("storeCheckpoint", (name,)) for name in checkpoint()],
    *[("storeEvent", (name,)) for name in event()],
    *[("storeRunSetting", (name,)) for name in setting()],
    *[("storeJob", ("usage", name)) for name in USAGE],
    *[("storeCheckpoint", ("usage", name)) for name in USAGE],
    *[("storeCheckpoint", ("expert", name)) for name in ("key", "name", "version")],
]


@pytest.mark.parametrize(("op", "path"), _REQUIRED, ids=str)
def test_a_required_field_that_is_missing_or_null_is_named(raw: Raw, op: str, path: tuple[str, ...]) -> None:
    """Also in usage and expert; null is what NaN becomes in JSON."""
    field = ".".join(path)
    refused(raw, "BAD_VALUE", field, op, without(VALUES[op](), *path))
    value = VALUES[op]()
    null = {path[0]: None} if len(path) == 1 else {path[0]: {**value[path[0]], path[1]: None}}
    refused(raw, "BAD_VALUE", field, op, {**value, **null})


@pytest.mark.parametrize(
    ("op", "field", "value"),
    [
        ("storeJob", "usage", []),
        ("storeJob", "usage.totalTokens", {**USAGE, "totalTokens": "3"}),
        ("storeJob", "usage.totalTokens", {**USAGE, "totalTokens": True}),
        ("storeJob", "status", 1),
        ("storeJob", "coordinatorExpertKey", []),
        ("storeCheckpoint", "messages", {}),
        ("storeCheckpoint", "messages", "none"),
        ("storeCheckpoint", "expert", "me"),
        ("storeCheckpoint", "expert.version", {"key": "k", "name": "n", "version": 1}),
        ("storeRunSetting", "providerConfig", []),
        ("storeRunSetting", "env", "A=1"),
        ("storeRunSetting", "input", None),
        ("storeRunSetting", "experts", 1),
        ("storeRunSetting", "maxRetries", "1"),
        ("storeRunSetting", "timeout", False),
    ],
)
def test_a_field_of_the_wrong_type_is_named(raw: Raw, op: str, field: str, value: object) -> None:
    """The JSON types of section 6."""
    refused(raw, "BAD_VALUE", field, op, VALUES[op](**{field.partition(".")[0]: value}))


def test_a_count_beyond_the_range_of_a_double_is_refused(raw: Raw) -> None:
    """Usage counts must be finite."""
    body = json.dumps(job(usage={**USAGE, "totalTokens": "HERE"})).replace('"HERE"', "1e400")
    refused(raw, "BAD_VALUE", "usage.totalTokens", "storeJob", body.encode())
