"""Which JSON is taken as a value: UTF-8, surrogates, repeated keys, and levels of nesting."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.errors import Refusal
from perstack_stored.model import names, nesting, value_check
from perstack_stored.model.kinds import Kind
from perstack_stored.model.nesting import NESTING_MAX
from tests.helpers.datadir import SAMPLES, checkpoint, dumps, event, setting
from tests.helpers.values import SLOW, deeper, raw, refusal

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
def test_legal_json_in_skipped_fields_is_taken(kind: Kind, text: bytes) -> None:
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


def test_of_a_repeated_key_the_last_one_counts(extra: dict[str, Any]) -> None:
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
