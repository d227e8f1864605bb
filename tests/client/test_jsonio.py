"""JSON goes out and comes back equal, or is refused with a sentence."""

import json
import math

import pytest

from perstack_storage._jsonio import _may_hold_long_integer, dumps, loads

HUGE = int("123456789" * 3 + "123")


@pytest.mark.parametrize(
    "value",
    [
        {"": 1},
        {"expertKey": "@scope/name@1.0.0"},
        {"delta": "half of a pair: \ud83d"},
        {"\udc00": "a lone surrogate in a key"},
        {"n": HUGE},
        {"n": -HUGE},
        {"n": 2**64},
        {"n": -(2**63) - 1},
        {"n": [2**63, 2**64 - 1, -(2**63)]},
        {"text": "12345678901234567890 in a string", "n": 0.12345678901234567},
        {"e": "ü€😀\u2028", "nested": [[[{"a": None}]]]},
        [HUGE],
        HUGE,
    ],
)
def test_a_value_comes_back_equal(value: object) -> None:
    assert loads(dumps(value)) == value
    assert type(loads(dumps(value))) is type(value)


@pytest.mark.parametrize("lead", range(40))
def test_a_long_integer_is_found_wherever_it_stands(lead: int) -> None:
    for number in (2**64, -(2**63) - 1, HUGE):
        text = json.dumps([" " * lead, number, "x"], separators=(",", ":")).encode()
        assert loads(text) == [" " * lead, number, "x"]


@pytest.mark.parametrize("lead", range(95_970, 96_010))
def test_a_long_integer_is_found_across_the_chunks_that_are_looked_at(lead: int) -> None:
    assert loads(b'["' + b"x" * lead + b'",18446744073709551616]')[1] == 2**64


def test_ordinary_records_are_not_suspected() -> None:
    event = {"timestamp": 1795406152411, "id": "tz4a98c1", "stepNumber": 12}
    assert not _may_hold_long_integer(dumps([event | {"timestamp": 1795406152411 + n} for n in range(100)]))


def test_a_number_beyond_a_double_becomes_infinity() -> None:
    assert loads(b'{"n":1e400,"m":-1e400}') == {"n": math.inf, "m": -math.inf}


def test_an_integer_of_more_digits_than_python_converts_becomes_infinity() -> None:
    assert loads(b"[" + b"9" * 5000 + b"]") == [math.inf]


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":1,}', b'{"a":\xff}', b'"\xff"'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each decoder has words of its own
        loads(text)


def test_nan_and_infinity_become_null_on_the_fast_and_the_slow_way() -> None:
    assert dumps({"a": math.nan, "b": math.inf}) == b'{"a":null,"b":null}'
    assert dumps({"a": math.nan, "b": [-math.inf], "c": "\ud800"}) == b'{"a":null,"b":[null],"c":"\\ud800"}'


def test_the_output_has_no_spaces_and_no_line_feed() -> None:
    assert dumps({"a": [1, {"b": "\n"}], "\ud800": {"c": 1}}) == b'{"a":[1,{"b":"\\n"}],"\\ud800":{"c":1}}'


def test_a_tuple_is_an_array_also_beside_a_lone_surrogate() -> None:
    assert loads(dumps({"a": (1, 2), "b": "\ud800"})) == {"a": [1, 2], "b": "\ud800"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [{"b": {1, 2}}]}, r"value\.a\[0\]\.b: .*set"),
        ({"a": {1: "x"}}, r"value\.a: a key must be a string, not int"),
        ({"a": b"bytes"}, r"value\.a: .*bytes"),
    ],
)
def test_what_has_no_form_in_json_is_refused_with_its_place(value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        dumps(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: dict[str, object] = {}
    value["self"] = value
    with pytest.raises(ValueError, match="holds itself"):
        dumps(value)


def test_nesting_deeper_than_orjson_writes_is_taken() -> None:
    value: object = "end"
    for _ in range(400):
        value = [value]
    assert dumps(value) == b"[" * 400 + b'"end"' + b"]" * 400
    assert loads(dumps(value)) == value
