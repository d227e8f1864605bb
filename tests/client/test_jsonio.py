"""JSON goes out and comes back equal, or is refused with a sentence."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from perstack_storage import NestedTooDeeply
from perstack_storage._core import deepjson
from perstack_storage._core.jsonio import _may_hold_long_integer, dumps, loads
from perstack_storage._core.masking import masked
from perstack_storage._views.differences import flat

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
def test_a_long_integer_is_found_at_any_place(lead: int) -> None:
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


def _nested(levels: int, inner: object) -> dict[str, object]:
    value: dict[str, object] = {"n": inner}
    for _ in range(levels - 1):
        value = {"a": 1, "deep": value}
    return value


def _in_depth(calls: int, call: Callable[[], object]) -> object:
    """Makes a call where the stack is as deep already."""
    return _in_depth(calls - 1, call) if calls else call()


def _inner(value: Any) -> tuple[int, object]:
    levels = 1
    while "deep" in value:
        value, levels = value["deep"], levels + 1
    return levels, value["n"]


@pytest.mark.parametrize("inner", [1, HUGE, "\ud83d", {"a": [1, {}, []]}])
@pytest.mark.parametrize("levels", [300, 1000, 9_900])
def test_a_value_of_any_depth_that_a_daemon_ever_took_comes_back(levels: int, inner: object) -> None:
    """Neither the Python nor the depth of the caller bounds it."""

    def there_and_back() -> object:
        return _inner(loads(dumps(_nested(levels, inner))))

    assert _in_depth(700, there_and_back) == (levels, inner)


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 50_000 + b"]" * 50_000])
def test_what_is_nested_beyond_the_bound_is_an_error_of_the_library(text: bytes) -> None:
    with pytest.raises(NestedTooDeeply):
        loads(text)


def test_a_value_nested_beyond_the_bound_or_in_itself_is_an_error_of_the_library() -> None:
    ring: list[object] = []
    ring.append(ring)
    for value in (_nested(10_001, 1), ring, {"a": [ring, ring]}):
        with pytest.raises(NestedTooDeeply):
            dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        r'[1,-2.5e3,"a\n\ud83d",true,false,null,{},[],{"a":{"b":[]}}]',
        *(
            ' [ 1 , { "a" : 2 } ] ',
            "3",
            '"x"',
            "[1,]",
            "[1 2]",
            '{"a"}',
            '{"a":1,}',
            "{1:2}",
            "[",
            "",
            "[1]]",
        ),
        *("nul", '["', "-", "01", "[1e]", '{"a":1]', "[1]x", "[NaN]x"),
    ],
)
def test_the_decoder_without_recursion_agrees_with_the_usual_one(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - each decoder has words of its own
            deepjson.decode(text, int)
    else:
        assert deepjson.decode(text, int) == expected


def test_secrets_are_hidden_and_fields_listed_at_any_depth() -> None:
    value = _nested(3_000, {"apiKey": "secret"})
    assert b"secret" not in dumps(masked(value))
    assert len(list(flat(value))) > 50
