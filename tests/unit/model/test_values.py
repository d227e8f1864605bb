"""What a value must be to be stored, and what is said about one that is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perstack_stored.model import value_check, values
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import SAMPLES, USAGE, checkpoint, dumps, event, job, setting
from tests.helpers.values import DELETE, changed, raw, refusal, refusal_or_none

SECRET = "SECRET-canary-1234567"

ID_FIELDS = [
    (Kind.JOB, "id"), (Kind.CHECKPOINT, "id"), (Kind.CHECKPOINT, "jobId"), (Kind.CHECKPOINT, "runId"),
    (Kind.EVENT, "id"),
    (Kind.EVENT, "jobId"), (Kind.EVENT, "runId"), (Kind.RUN_SETTING, "jobId"), (Kind.RUN_SETTING, "runId"),
]  # fmt: skip
BAD_IDS = [
    "", ".", "..", "a/b", "../../x", "/", "a\\b", "a\0b", "\n", "a\x1fb", "a\x7fb", "a\x80b", "a\x9fb",
    "x" * 201,
    "é" * 101, "x" * 300, None, 5, True, ["a"], {"a": 1}, DELETE,
]  # fmt: skip
GOOD_IDS = [
    "a",
    "...",
    ".a",
    "a.",
    "a b",
    " ",
    "x" * 200,
    "é" * 100,
    "日本",
    "a'b\"c",
    "-",
    "~",
    "%2F",
    "\xa0",
    "🙂" * 50,
]
TIME_FIELDS = [
    (Kind.JOB, "startedAt"), (Kind.EVENT, "timestamp"), (Kind.RUN_SETTING, "startedAt"),
    (Kind.RUN_SETTING, "updatedAt"),
]  # fmt: skip
STEP_FIELDS = [(Kind.JOB, "totalSteps"), (Kind.CHECKPOINT, "stepNumber"), (Kind.EVENT, "stepNumber")]
GOOD_NUMBERS = [
    b"0",
    b"-0",
    b"1",
    b"1.0",
    b"1e3",
    b"1E+3",
    b"9007199254740991",
    b"9007199254740991.0",
    b"-0.0",
]
BAD_NUMBERS = [
    b"-1", b"-0.5", b"9007199254740992", b"1e400", b"-1e400", b"123456789012345678901234567890", b"null",
    b"true",
    b'"5"', b"[]", b"{}", b"9" * 400, b"1e16",
]  # fmt: skip
STRING_FIELDS = [
    (Kind.JOB, "status"), (Kind.JOB, "coordinatorExpertKey"), (Kind.CHECKPOINT, "status"),
    (Kind.CHECKPOINT, "expert.key"),
    (Kind.CHECKPOINT, "expert.name"), (Kind.CHECKPOINT, "expert.version"), (Kind.EVENT, "expertKey"),
    (Kind.EVENT, "type"),
    (Kind.RUN_SETTING, "model"), (Kind.RUN_SETTING, "expertKey"), (Kind.RUN_SETTING, "perstackApiBaseUrl"),
]  # fmt: skip
OBJECT_FIELDS = [
    (Kind.JOB, "usage"), (Kind.CHECKPOINT, "usage"), (Kind.CHECKPOINT, "expert"),
    (Kind.RUN_SETTING, "providerConfig"),
    (Kind.RUN_SETTING, "input"), (Kind.RUN_SETTING, "experts"), (Kind.RUN_SETTING, "env"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "field"), ID_FIELDS)
@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
def test_a_bad_id_is_refused_by_name(kind: Kind, field: str, bad: object, extra: dict[str, Any]) -> None:
    """Ids that can't be a path component, or are no strings, or missing, never reach the journal."""
    refused = refusal(kind, dumps(changed(extra | SAMPLES[kind], field, bad)))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)
    assert field in refused.message


@pytest.mark.parametrize(("kind", "field"), ID_FIELDS)
@pytest.mark.parametrize("good", GOOD_IDS, ids=repr)
def test_a_good_id_is_taken(kind: Kind, field: str, good: str, extra: dict[str, Any]) -> None:
    """Ids of up to 200 bytes of UTF-8 with dots, spaces, quotes and any script are fine."""
    value = value_check.check(kind, dumps(extra | SAMPLES[kind] | {field: good}))
    assert getattr(value, field) == good


@pytest.mark.parametrize(("kind", "field"), ID_FIELDS)
def test_a_lone_surrogate_in_an_id_is_refused(kind: Kind, field: str) -> None:
    """No file can be named by a lone surrogate."""
    refused = refusal(kind, raw(SAMPLES[kind], field, b'"a\\ud800"'))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)


@pytest.mark.parametrize(
    "bad", ["", "a.b", ".", "a/b", "a\\b", "a\0", "x" * 101, "é" * 51, None, 1, DELETE], ids=repr
)
def test_a_bad_event_type_is_refused(bad: object, extra: dict[str, Any]) -> None:
    """A type that the file's name can't carry, with a dot or a slash or too long, is refused."""
    refused = refusal(Kind.EVENT, dumps(changed(extra | event(), "type", bad)))
    assert (refused.code, refused.field) == ("BAD_VALUE", "type")


@pytest.mark.parametrize("good", ["startRun", "with-dash", "n0002", "x" * 100, "new type", "é" * 50])
def test_any_other_event_type_is_taken(good: str) -> None:
    """Types that are not known yet, also with a dash, are fine: a newer Perstack keeps working."""
    value = value_check.check(Kind.EVENT, dumps(event(type=good)))
    assert isinstance(value, values.Event)
    assert value.type == good


@pytest.mark.parametrize(("kind", "field"), TIME_FIELDS + STEP_FIELDS)
@pytest.mark.parametrize("text", BAD_NUMBERS)
def test_a_number_out_of_its_range_is_refused(
    kind: Kind, field: str, text: bytes, extra: dict[str, Any]
) -> None:
    """Times and steps are 0 to 2^53-1; null (as NaN is written), strings and infinities are refused."""
    refused = refusal(kind, raw(extra | SAMPLES[kind], field, text))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)


@pytest.mark.parametrize(("kind", "field"), TIME_FIELDS + STEP_FIELDS)
@pytest.mark.parametrize("text", GOOD_NUMBERS)
def test_a_number_in_its_range_is_taken_in_any_notation(
    kind: Kind, field: str, text: bytes, extra: dict[str, Any]
) -> None:
    """JSON has one kind of number: 1.0 and 1e3 are integers as well."""
    value = value_check.check(kind, raw(extra | SAMPLES[kind], field, text))
    assert getattr(value, field) == float(text)


@pytest.mark.parametrize(("kind", "field"), STEP_FIELDS)
@pytest.mark.parametrize("text", [b"1.5", b"0.1", b"1e-3", b"4503599627370495.5"])
def test_a_step_with_a_fraction_is_refused(
    kind: Kind, field: str, text: bytes, extra: dict[str, Any]
) -> None:
    """There is no step 1.5."""
    refused = refusal(kind, raw(extra | SAMPLES[kind], field, text))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)


@pytest.mark.parametrize(("kind", "field"), TIME_FIELDS)
def test_a_time_with_a_fraction_is_taken(kind: Kind, field: str) -> None:
    """performance.now() gives fractions of milliseconds."""
    assert (
        getattr(value_check.check(kind, raw(SAMPLES[kind], field, b"1700000000000.123")), field)
        == 1700000000000.123
    )


@pytest.mark.parametrize(("kind", "field"), STRING_FIELDS)
@pytest.mark.parametrize("bad", [None, 1, True, [], {}, DELETE], ids=repr)
def test_a_value_that_is_not_a_string_is_refused(
    kind: Kind, field: str, bad: object, extra: dict[str, Any]
) -> None:
    """Required strings must be strings; the field is named with its path."""
    refused = refusal(kind, dumps(changed(extra | SAMPLES[kind], field, bad)))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)


@pytest.mark.parametrize(("kind", "field"), STRING_FIELDS)
@pytest.mark.parametrize(
    "good", ["@scope/name@1.0.0", "", "\ud800", "x" * 10_000], ids=["key", "empty", "surrogate", "long"]
)
def test_expert_keys_and_other_strings_are_no_ids(kind: Kind, field: str, good: str) -> None:
    """Strings that are not ids may hold slashes, nothing at all, lone surrogates, and be long."""
    if field != "type":
        payload = json.dumps(changed(SAMPLES[kind], field, good)).encode()
        value_check.check(kind, payload)


@pytest.mark.parametrize(("kind", "field"), OBJECT_FIELDS)
@pytest.mark.parametrize("bad", [None, 1, "x", [], DELETE], ids=repr)
def test_a_value_that_is_not_an_object_is_refused(
    kind: Kind, field: str, bad: object, extra: dict[str, Any]
) -> None:
    """A checkpoint without usage, or settings without their objects, would be unreadable."""
    refused = refusal(kind, dumps(changed(extra | SAMPLES[kind], field, bad)))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)


@pytest.mark.parametrize("bad", [None, {}, "x", 1, DELETE], ids=repr)
def test_messages_must_be_an_array(bad: object, extra: dict[str, Any]) -> None:
    """The messages of a checkpoint are an array; what is in it is not looked at."""
    refused = refusal(Kind.CHECKPOINT, dumps(changed(extra | checkpoint(), "messages", bad)))
    assert (refused.code, refused.field) == ("BAD_VALUE", "messages")
    value_check.check(Kind.CHECKPOINT, dumps(extra | checkpoint(messages=[1, "x", {"": [None]}])))


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.CHECKPOINT])
@pytest.mark.parametrize("field", USAGE)
@pytest.mark.parametrize("text", [b"null", b'"1"', b"1e400", b"-1e400", b"9" * 400, b"true"])
def test_usage_must_be_five_finite_numbers(
    kind: Kind, field: str, text: bytes, extra: dict[str, Any]
) -> None:
    """NaN becomes null in JSON, 1e400 and 400 digits become Infinity: none of them is a number of tokens."""
    payload = dumps(extra | SAMPLES[kind] | {"usage": USAGE | {field: "@@"}}).replace(b'"@@"', text)
    refused = refusal(kind, payload)
    assert (refused.code, refused.field) == ("BAD_VALUE", f"usage.{field}")
    missing = refusal(kind, dumps(changed(extra | SAMPLES[kind], f"usage.{field}", DELETE)))
    assert (missing.code, missing.field) == ("BAD_VALUE", f"usage.{field}")


@pytest.mark.parametrize("text", [b"-1", b"1.5", b"1e300", b"123456789012345678901234567890", b"0"])
def test_usage_may_be_any_finite_number(text: bytes, extra: dict[str, Any]) -> None:
    """Counters are not judged: negative, fractional and huge ones are numbers."""
    value_check.check(
        Kind.JOB, dumps(extra | job() | {"usage": USAGE | {"totalTokens": "@@"}}).replace(b'"@@"', text)
    )


@pytest.mark.parametrize("field", ["maxRetries", "timeout"])
@pytest.mark.parametrize("text", [b"null", b'"1"', b"1e400", b"[]"])
def test_numbers_of_a_setting_must_be_numbers(field: str, text: bytes, extra: dict[str, Any]) -> None:
    """Retries and timeout are numbers."""
    refused = refusal(Kind.RUN_SETTING, raw(extra | setting(), field, text))
    assert (refused.code, refused.field) == ("BAD_VALUE", field)


@pytest.mark.parametrize("kind", list(SAMPLES))
def test_each_required_field_is_required(kind: Kind, extra: dict[str, Any]) -> None:
    """Without any of the fields of wire.md, section 6, a value is refused; all others may be missing."""
    optional = {"reasoningBudget", "maxSteps"}
    for field in SAMPLES[kind]:
        payload = dumps(changed(extra | SAMPLES[kind], field, DELETE))
        if field in optional:
            value_check.check(kind, payload)
        else:
            refused = refusal(kind, payload)
            assert (refused.code, refused.field, refused.message) == (
                "BAD_VALUE",
                field,
                f"{field} is missing",
            )


@pytest.mark.parametrize("field", ["reasoningBudget", "maxSteps"])
@pytest.mark.parametrize("text", [b'"high"', b"null", b"7", b"[1]", b"1e400", b'{"\\ud800":1}'])
def test_it_is_seen_whether_a_setting_has_its_defaults(
    field: str, text: bytes, extra: dict[str, Any]
) -> None:
    """Whatever stands in a field with a default counts as there; only a missing one gets the default."""
    present = value_check.check(Kind.RUN_SETTING, raw(extra | setting(), field, text))
    assert getattr(present, field) is not values.UNSET
    missing = value_check.check(Kind.RUN_SETTING, dumps(changed(extra | setting(), field, DELETE)))
    assert getattr(missing, field) is values.UNSET


# --- what is said ----------------------------------------------------------------------------------

_FIELDS = [(kind, field) for kind in SAMPLES for field in SAMPLES[kind]]


@pytest.mark.parametrize(("kind", "field"), _FIELDS)
@pytest.mark.parametrize(
    "shape", [SECRET, [SECRET], {SECRET: SECRET}, f"{SECRET}/", {"apiKey": {SECRET: [SECRET]}}], ids=str
)
def test_an_error_never_contains_a_value(
    kind: Kind, field: str, shape: object, extra: dict[str, Any]
) -> None:
    """Errors are logged and shown: neither a value nor a key inside one is ever in their text."""
    refused = refusal_or_none(kind, dumps(extra | SAMPLES[kind] | {field: shape}))
    if refused is not None:
        assert "canary" not in json.dumps(refused.as_dict())
        assert str(refused.field).split(".")[0] == field


@pytest.mark.parametrize("tail", [b"x", b",", b'"', b'\\q"', b"\xff", b"\x01", b"NaN", b"}}", b'":'])
def test_an_error_about_json_never_contains_a_value(tail: bytes, extra: dict[str, Any]) -> None:
    """Broken JSON is described by what is wrong, not by what stands there."""
    for cut in (b'"' + SECRET.encode() + b'":"' + SECRET.encode(), b'"a":"' + SECRET.encode()):
        payload = dumps(extra | event())[:-1] + b"," + cut + tail
        assert "canary" not in json.dumps(refusal(Kind.EVENT, payload).as_dict())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda c: st.lists(c) | st.dictionaries(st.text(), c),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(SAMPLES)), st.data())
def test_a_value_is_checked_or_refused_and_nothing_else_happens(kind: Kind, data: st.DataObject) -> None:
    """Whatever stands in one field of a value, the check takes it or refuses it by this field's name."""
    field = data.draw(st.sampled_from(list(SAMPLES[kind])))
    new = data.draw(_JSON)
    payload = json.dumps(SAMPLES[kind] | {field: new}).encode()
    refused = refusal_or_none(kind, payload)
    assert refused is None or refused.field is None or refused.field.split(".")[0] == field


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(list(SAMPLES)), st.integers(0, 400), st.booleans())
def test_garbage_anywhere_in_a_value_is_refused_or_taken(
    garbage: bytes, kind: Kind, place: int, insert: bool
) -> None:
    """Bytes put into a value at any place never raise anything but a refusal."""
    payload = dumps(SAMPLES[kind])
    place = min(place, len(payload))
    payload = payload[:place] + garbage + payload[place if insert else place + len(garbage) :]
    refused = refusal_or_none(kind, payload)
    if refused is None:
        json.loads(payload.decode())
    else:
        assert refused.code in {"BAD_JSON", "BAD_VALUE"}


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_the_keys_of_many_events_come_in_their_order(count: int) -> None:
    """Also where some hold what the decoder of many refuses: a lone surrogate."""
    sent = [dumps(event(id=f"e{n}", stepNumber=n)) for n in range(count)]
    for n in range(10, count, 90):
        sent[n] = sent[n].replace(b'"e%d"' % n, b'"\\ud800"')
    assert [key.stepNumber for key in values.event_keys(sent)] == list(range(count))
