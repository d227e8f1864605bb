"""What a value must be to be stored, and what is said about one that is refused."""

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perstack_stored.errors import Refusal
from perstack_stored.model import names, nesting, value_check, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.nesting import NESTING_MAX
from tests.helpers.datadir import SAMPLES, USAGE, checkpoint, dumps, event, job, setting

SECRET = "SECRET-canary-1234567"


class _Delete:
    def __repr__(self) -> str:
        return "deleted"  # the same in each process that collects these tests


DELETE = _Delete()


def changed(value: dict[str, Any], path: str, new: object) -> dict[str, Any]:
    """A value with one field, at a dotted path, replaced or deleted."""
    head, _, rest = path.partition(".")
    if rest:
        return value | {head: changed(value[head], rest, new)}
    if new is DELETE:
        return {key: item for key, item in value.items() if key != head}
    return value | {head: new}


def refusal(kind: Kind, payload: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        value_check.check(kind, payload)
    return caught.value


def refusal_or_none(kind: Kind, payload: bytes) -> Refusal | None:
    try:
        value_check.check(kind, payload)
    except Refusal as refused:
        return refused
    return None


def raw(value: dict[str, Any], field: str, text: bytes) -> bytes:
    """A value whose field holds a given JSON text."""
    return dumps(value | {field: "@@"}).replace(b'"@@"', text)


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
SLOW = {"zz": "\ud800"}  # sends a value the second way, through the standard library


@pytest.fixture(params=["fast", "slow"])
def extra(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Nothing, or a field that only the second opinion takes: both must say the same."""
    return SLOW if request.param == "slow" else {}


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
def test_a_number_in_its_range_is_taken_however_it_is_written(
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
def test_a_string_that_is_none_is_refused(kind: Kind, field: str, bad: object, extra: dict[str, Any]) -> None:
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
def test_an_object_that_is_none_is_refused(
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


# --- JSON ------------------------------------------------------------------------------------------

NOT_JSON = {
    "empty": b"",
    "white space": b"  \n",
    "cut": dumps(event())[:-1],
    "trailing text": dumps(event()) + b"x",
    "two objects": dumps(event()) * 2,
    "trailing comma": dumps(event())[:-1] + b",}",
    "NaN": raw(event(), "timestamp", b"NaN"),
    "NaN in a skipped field": raw(event(), "zz", b"NaN"),
    "Infinity": raw(event(), "zz", b"Infinity"),
    "minus Infinity": raw(event(), "zz", b"-Infinity"),
    "leading zero": raw(event(), "zz", b"01"),
    "plus": raw(event(), "zz", b"+1"),
    "hexadecimal": raw(event(), "zz", b"0x1"),
    "single quotes": dumps(event()).replace(b'"', b"'"),
    "control character": raw(event(), "zz", b'"a\x01b"'),
    "raw line feed in a string": raw(event(), "zz", b'"a\nb"'),
    "bad escape": raw(event(), "zz", b'"\\q"'),
    "bad unicode escape": raw(event(), "zz", b'"\\u12g4"'),
    "byte order mark": b"\xef\xbb\xbf" + dumps(event()),
    "UTF-16": json.dumps(event()).encode("utf-16-le"),
    "UTF-16 big endian": json.dumps(event()).encode("utf-16-be"),
    "UTF-16 with a mark": json.dumps(event()).encode("utf-16"),
    "UTF-32": json.dumps(event()).encode("utf-32-le"),
    "invalid UTF-8": raw(event(), "expertKey", b'"\xff"'),
    "invalid UTF-8 in a skipped field": raw(event(), "zz", b'"a\xffb"'),
    "invalid UTF-8 in a key": dumps(event(zz=1)).replace(b"zz", b"\xc3\x28"),
    "overlong UTF-8": raw(event(), "zz", b'"\xc0\xaf"'),
    "surrogate in UTF-8": raw(event(), "zz", b'"\xed\xa0\x80"'),
    "cut UTF-8": raw(event(), "zz", b'"\xe6\x97"'),
    "NUL behind": dumps(event()) + b"\0",
    "comment": dumps(event()) + b"//x",
    "100,000 levels": raw(event(), "zz", b"[" * 100_000 + b"]" * 100_000),
    "100,000 levels, not closed": raw(event(), "zz", b"[" * 100_000),
    "100,000 levels of objects": raw(event(), "zz", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "array": b"[]",
    "array of the value": b"[" + dumps(event()) + b"]",
    "null": b"null",
    "number": b"1",
    "string": b'"x"',
}


@pytest.mark.parametrize("payload", list(NOT_JSON.values()), ids=list(NOT_JSON))
@pytest.mark.parametrize("slow", [False, True])
def test_what_is_not_one_json_object_in_utf8_is_refused(payload: bytes, slow: bool) -> None:
    """Anything that a strict JSON reader would refuse is refused, in skipped fields too."""
    if slow and payload.startswith(b"{") and b'"type":' in payload:
        payload = payload.replace(b'{"type":', b'{"yy":"\\udc00","type":', 1)
    refused = refusal(Kind.EVENT, payload)
    assert refused.code == "BAD_JSON"
    assert refused.field is None


LEGAL = {
    "lone high surrogate": b'"\\ud800"',
    "lone low surrogate": b'"a\\udc00b"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "surrogate as a key": b'{"\\ud800":1}',
    "1e400": b"1e400",
    "minus 1e400": b"[-1e400]",
    "30 digits": b"123456789012345678901234567890",
    "5,000 digits": b"9" * 5000,
    "tiny": b"1e-400",
    "empty key": b'{"":{"":[]}}',
    "duplicate keys": b'{"a":1,"a":2}',
    "NUL escape": b'"\\u0000"',
    "any UTF-8": '"日本🙂\u2028\x7f"'.encode(),
    "500 levels": b"[" * 500 + b"]" * 500,
    "800 levels": b"[" * 800 + b"]" * 800,
    "858 levels": b"[" * 858 + b"]" * 858,
    "a Hangul escape": b'"\\ud55c\\uD7FF"',
    "__proto__": b'{"__proto__":{"toString":1}}',
    "white space": b" \t\r\n[ ] ",
}


@pytest.mark.parametrize("text", list(LEGAL.values()), ids=list(LEGAL))
@pytest.mark.parametrize("kind", list(SAMPLES))
def test_legal_json_in_fields_that_nobody_looks_at_is_taken(kind: Kind, text: bytes) -> None:
    """What JavaScript can write or read is stored as it is, however odd, in unknown fields at any level."""
    value = value_check.check(kind, raw(SAMPLES[kind], "unknown", text))
    again = value_check.check(kind, raw(SLOW | SAMPLES[kind], "unknown", text))
    assert value.__struct_fields__ == again.__struct_fields__
    for name in ("usage", "expert"):
        if name in SAMPLES[kind]:
            nested = dumps(SAMPLES[kind] | {name: SAMPLES[kind][name] | {"unknown": "@@"}}).replace(
                b'"@@"', text
            )
            value_check.check(kind, nested)


@pytest.mark.parametrize("text", list(LEGAL.values()), ids=list(LEGAL))
def test_legal_json_inside_messages_and_settings_is_taken(text: bytes) -> None:
    """The insides of messages, input, env and the rest of a setting are kept, whatever they are."""
    value_check.check(Kind.CHECKPOINT, raw(checkpoint(), "messages", b"[" + text + b"]"))
    for field in ("providerConfig", "input", "experts", "env"):
        value_check.check(Kind.RUN_SETTING, raw(setting(), field, b'{"a":' + text + b"}"))


@pytest.mark.parametrize("place", ["usage", "expert", "messages", "top"])
def test_a_lone_surrogate_as_a_key_is_taken_anywhere(place: str) -> None:
    """A key that no UTF-8 can write must not upset the checks of the objects it stands in."""
    payload = dumps(checkpoint(messages=[{"@@": 1}]))
    if place == "top":
        payload = dumps(checkpoint() | {"@@": 1})
    elif place != "messages":
        payload = dumps(checkpoint() | {place: checkpoint()[place] | {"@@": 1}})
    value_check.check(Kind.CHECKPOINT, payload.replace(b"@@", b"\\ud800"))


def test_of_a_key_that_stands_twice_the_last_one_counts(extra: dict[str, Any]) -> None:
    """Both ways of decoding agree with JSON.parse about repeated keys."""
    payload = b'{"id":"first",' + dumps(extra | event(id="last"))[1:]
    assert value_check.check(Kind.EVENT, payload).id == "last"  # type: ignore[union-attr]
    bad = dumps(extra | event())[:-1] + b',"id":""}'
    assert refusal(Kind.EVENT, bad).field == "id"


def test_a_key_may_be_escaped(extra: dict[str, Any]) -> None:
    """The key written as an escape is the same key."""
    payload = dumps(extra | event()).replace(b'"jobId"', b'"\\u006aobId"')
    assert value_check.check(Kind.EVENT, payload).jobId == "job-1"  # type: ignore[union-attr]


def test_a_value_that_came_in_parts_is_checked_like_any(extra: dict[str, Any]) -> None:
    """A bytearray is taken and refused as bytes are."""
    value_check.check(Kind.EVENT, bytearray(dumps(extra | event())))
    with pytest.raises(Refusal):
        value_check.check(Kind.EVENT, bytearray(b"\xff"))


def test_many_ids_take_bounded_memory() -> None:
    """The memory of ids found right does not grow with history."""
    for i in range(10_000):
        names.check_id(f"job-{i}", "jobId")
    assert len(names._known_ids) <= 4096
    with pytest.raises(Refusal):
        names.check_id("..", "jobId")


def deeper(levels: int, payload: bytes | memoryview) -> values.Value:
    """Decode with some more frames on the stack."""
    return deeper(levels - 1, payload) if levels else values.decode(Kind.EVENT, payload)


@pytest.mark.parametrize("levels", [900, 9_900])
@pytest.mark.parametrize("around", ["%b", '["\\ud800",%b]'], ids=["fast", "slow"])
def test_what_an_older_daemon_stored_can_be_decoded_with_any_stack(levels: int, around: str) -> None:
    """Older daemons took values up to the interpreter's bound, which is 900 or 9,900 levels."""
    payload = raw(event(), "zz", around.encode() % (b"[" * levels + b'"]"' + b"]" * levels))
    for text in (payload, memoryview(payload)):
        assert deeper(40, text).id == event()["id"]  # type: ignore[union-attr]
    assert refusal(Kind.EVENT, payload).message == "the event is nested too deeply"


@pytest.mark.parametrize("kind", list(SAMPLES))
@pytest.mark.parametrize(
    ("left", "right"), [(b"[", b"]"), (b'{"":', b"}"), (b'{"[":"]\\"","":', b"}"), (b"[ [],\n", b"]")]
)
@pytest.mark.parametrize(
    ("inside", "levels"),
    [(b"[]", 1), (b'["' + b"[" * 5000 + b'"]', 1), (b"[" + b"[],[[]]," * 5000 + b"0]", 3)],
    ids=["empty", "string", "wide"],
)
def test_a_value_has_at_most_860_levels(
    kind: Kind, left: bytes, right: bytes, inside: bytes, levels: int
) -> None:
    """860 objects and arrays within each other are taken, itself included; 861 are not, on any Python."""
    for extra in ({}, SLOW):
        most = NESTING_MAX - 1 - levels
        value_check.check(kind, raw(extra | SAMPLES[kind], "deep", left * most + inside + right * most))
        payload = raw(extra | SAMPLES[kind], "deep", left * (most + 1) + inside + right * (most + 1))
        assert refusal(kind, payload).message.endswith("is nested too deeply")


@pytest.mark.parametrize("messages", [1, 900])
@pytest.mark.parametrize("place", ["first", "last", "beside"])
def test_the_levels_of_a_checkpoint_are_counted_in_its_messages_and_beside_them(
    messages: int, place: str
) -> None:
    """Each message is looked at by itself, and so is the rest: a deep one among many is found."""

    def shaped(levels: int) -> bytes:
        inner = [b'{"a":"[[","b":[1]}'] * messages
        deep = b"[" * levels + b"]" * levels
        if place != "beside":
            inner[0 if place == "first" else -1] = deep
        extra = {"zz": "##"} if place == "beside" else {}
        payload = raw(extra | checkpoint(), "messages", b"[" + b" ,\n".join(inner) + b"]")
        return payload.replace(b'"##"', deep)

    most = NESTING_MAX - (1 if place == "beside" else 2)
    value_check.check(Kind.CHECKPOINT, shaped(most))
    assert refusal(Kind.CHECKPOINT, shaped(most + 1)).message == "the checkpoint is nested too deeply"
    assert refusal(Kind.CHECKPOINT, shaped(20_000)).message == "the checkpoint is nested too deeply"


def test_a_checkpoint_of_small_messages_is_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded anyway shows that it is not deep."""
    monkeypatch.setattr(value_check, "is_too_deep", lambda _: pytest.fail("it was scanned"))
    small = [{"type": "text", "text": 'a "quoted" text' * 20}] * 1000
    value_check.check(Kind.CHECKPOINT, dumps(checkpoint(messages=[*small, {"text": "long" * 5000}])))


def nesting_of(value: object) -> int:
    """Levels of a decoded value."""
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(nesting_of, value.values() if isinstance(value, dict) else value), default=0)


def shallower(value: Any, levels: int) -> Any:
    """A decoded value without what is below a number of levels."""
    if isinstance(value, dict):
        return {key: shallower(item, levels - 1) for key, item in value.items()} if levels else {}
    if isinstance(value, list):
        return [shallower(item, levels - 1) for item in value] if levels else []
    return value


_PIECES = st.sampled_from(["", "[", "]{", '"', '\\"', "\\", "\\\\", "é}", "\n", "\ud800"])
_NESTED = st.recursive(
    _PIECES | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_PIECES, inner, max_size=3),
)


@given(st.dictionaries(_PIECES, _NESTED, max_size=3), st.integers(1, 6), st.integers(1, 9))
def test_levels_are_counted_as_json_counts_them(value: dict[str, Any], levels: int, slice_bytes: int) -> None:
    """Brackets in strings don't count, however the text is cut into slices."""
    text = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "NESTING_MAX", levels)
        patch.setattr(nesting, "SHALLOW_BYTES", 0)
        patch.setattr(nesting, "_SLICE_BYTES", slice_bytes)
        patch.setattr(nesting, "_ROOM_MIN", 3)
        patch.setattr(nesting, "_STEPS_EXACT", slice_bytes)
        assert nesting.is_too_deep(text) == (nesting_of(value) > levels)
    assert json.loads(nesting.pruned(text, levels)) == shallower(value, levels)


# --- what it costs ---------------------------------------------------------------------------------

_SHAPES = {
    "other alphabets": "ü".encode() * 2,
    "emoji": "🙂".encode(),
    "escaped backslashes": rb"\\\\",
    "lone surrogates": rb"\ud800",
    "pairs, one broken": rb"\ud83d\ude42",
    "quotes": rb"\"",
    "brackets": b"[",
}


def cost_of(payload: bytes) -> float:
    """Seconds of the processor that a check takes, the least of some."""

    def once() -> float:
        before = time.process_time()
        refusal_or_none(Kind.EVENT, payload)
        return time.process_time() - before

    return min(once() for _ in range(4))


@pytest.mark.parametrize("shape", list(_SHAPES.values()), ids=list(_SHAPES))
@pytest.mark.parametrize("end", [b'"', rb'\ud800"', b""], ids=["plain", "surrogate", "cut"])
def test_no_shape_of_text_is_of_another_class_of_cost(shape: bytes, end: bytes) -> None:
    """Whatever a string holds, it costs no more than some times what letters cost, and that with any size."""

    def shaped(piece: bytes, size: int) -> bytes:
        return raw(event(), "x", b'"' + piece * (size // len(piece)) + end)

    plain = cost_of(raw(event(), "x", b'"' + b"a" * 1_000_000 + b'"'))
    small, large = cost_of(shaped(shape, 500_000)), cost_of(shaped(shape, 1_000_000))
    assert large < 100 * plain
    assert large < 8 * small


@pytest.mark.parametrize("shape", [*_SHAPES.values(), b"x" + "🙂".encode()], ids=[*_SHAPES, "mixed"])
@pytest.mark.parametrize("end", [b'"', rb'\ud800"', b""], ids=["plain", "surrogate", "cut"])
def test_a_check_takes_two_copies_of_a_value_at_most(shape: bytes, end: bytes) -> None:
    """Beside the value there is room for a copy and for some slices, whatever it holds."""
    payload = raw(event(), "x", b'"' + shape * (12_000_000 // len(shape)) + end)
    tracemalloc.start()
    refusal_or_none(Kind.EVENT, payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(payload) + (10 << 20)


_PAD = "p" * 20_000


@pytest.mark.parametrize("kind", list(SAMPLES))
@pytest.mark.parametrize("odd", [None, True, 5, -1.5, 1e300, "x", [], {}, [1], {"a": 1}, DELETE], ids=repr)
def test_a_large_value_is_refused_as_a_small_one(
    kind: Kind, odd: object, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field by field, with the same words."""
    for module in (values, value_check):
        monkeypatch.setattr(module, "LARGE_BYTES", len(_PAD))
    for field in SAMPLES[kind]:
        small = extra | changed(SAMPLES[kind], field, odd)
        found = [refusal_or_none(kind, dumps(value)) for value in (small, small | {"zzz": _PAD})]
        assert (found[0] and found[0].as_dict()) == (found[1] and found[1].as_dict())


@pytest.mark.parametrize(
    ("kind", "field", "text"),
    [
        (Kind.CHECKPOINT, "messages", b"[" + b"{}," * 700_000 + b"{}]"),
        (Kind.RUN_SETTING, "env", b"{" + b'"a":0,' * 300_000 + b'"b":1}'),
        (Kind.RUN_SETTING, "input", b"{" + b",".join(b'"%d":0' % i for i in range(200_000)) + b"}"),
    ],
)
def test_many_messages_or_members_take_no_multiple_of_their_bytes(
    kind: Kind, field: str, text: bytes
) -> None:
    """They are not looked at, so nothing is made of them."""
    payload = raw(SAMPLES[kind], field, text)
    tracemalloc.start()
    value_check.check(kind, payload)
    values.decode(kind, memoryview(payload))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(payload)


@pytest.mark.parametrize("lone", ["", "\ud800"])
@pytest.mark.parametrize("id_", ["한", "🙂", "\ue000", "\uf000🙂\ue83d", "a\ud7ff", "\ue000" * 50])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_id_is_taken_as_it_was_sent_beside_a_lone_surrogate(id_: str, lone: str, ascii_only: bool) -> None:
    """Escaped or not, private characters, pairs and Hangul in ids are what they are."""
    text = json.dumps(event(id=id_, runId=f"r{id_}", zz="@@"), ensure_ascii=ascii_only)
    value = value_check.check(Kind.EVENT, text.replace('"@@"', json.dumps(lone)).encode())
    assert isinstance(value, values.Event)
    assert (value.id, value.runId) == (id_, f"r{id_}")


@pytest.mark.parametrize("text", [b"1", b"1.50", b"17171717172e2", b" 12 "])
@pytest.mark.parametrize("beside", [b"0", b'"\\ud800"', b"[" * 9900 + b"]" * 9900], ids=["0", "lone", "deep"])
def test_the_text_of_a_setting_s_time_is_found(text: bytes, beside: bytes) -> None:
    """The index keeps the digits as they were sent, whatever else the setting holds."""
    payload = raw(setting() | {"zz": {"updatedAt": 5}, "yy": "##"}, "updatedAt", text)
    assert values.updated_at_as_sent(payload.replace(b'"##"', beside)) == text.strip().decode()


def test_what_is_taken_can_be_decoded_with_a_deeper_stack() -> None:
    """A projection may stand on a deeper stack than the check, and the check on a deep one."""
    payload = raw(event(), "zz", b"[" * 850 + b"]" * 850)
    value_check.check(Kind.EVENT, payload)
    deeper(40, payload)
    deeper(300, payload)


# --- what is said ----------------------------------------------------------------------------------

_FIELDS = [(kind, field) for kind in SAMPLES for field in SAMPLES[kind]]


@pytest.mark.parametrize(("kind", "field"), _FIELDS)
@pytest.mark.parametrize(
    "shape", [SECRET, [SECRET], {SECRET: SECRET}, f"{SECRET}/", {"apiKey": {SECRET: [SECRET]}}], ids=str
)
def test_an_error_never_tells_a_value(kind: Kind, field: str, shape: object, extra: dict[str, Any]) -> None:
    """Errors are logged and shown: neither a value nor a key inside one is ever in their text."""
    refused = refusal_or_none(kind, dumps(extra | SAMPLES[kind] | {field: shape}))
    if refused is not None:
        assert "canary" not in json.dumps(refused.as_dict())
        assert str(refused.field).split(".")[0] == field


@pytest.mark.parametrize("tail", [b"x", b",", b'"', b'\\q"', b"\xff", b"\x01", b"NaN", b"}}", b'":'])
def test_an_error_about_json_never_tells_a_value(tail: bytes, extra: dict[str, Any]) -> None:
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
