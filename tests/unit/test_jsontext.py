"""JSON handled by its tokens, so that no number and no surrogate changes."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored import jsontext

_TEXT = st.text(st.characters(exclude_categories=[])) | st.sampled_from(
    ['"', "\\", '\\"', "{", "}]", ":,", "a\nb", "\u2028"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_TEXT, children, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(_TEXT, _VALUES, max_size=5)


@given(_OBJECTS, st.booleans(), st.sampled_from([None, 0, 1, 3, "\t", "\r\n "]))
def test_indenting_gives_what_json_stringify_gives(
    value: dict[str, Any], ascii_only: bool, indent: str | int | None
) -> None:
    """However the text was laid out, the result is laid out by two spaces, and its tokens are the same."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    wanted = json.dumps(value, ensure_ascii=ascii_only, indent=2).encode("utf-8", "surrogatepass")
    assert jsontext.indent(text) == wanted
    assert jsontext.indent(wanted) == wanted


@pytest.mark.parametrize(
    "token", ["1e400", "-0", "1.0", "1E+05", "123456789012345678901234567890", r'"\ud800\/\u0041"', "-0.0e-0"]
)
def test_indenting_changes_no_token(token: str) -> None:
    """Numbers beyond a double and escapes that nobody needs stay as they were sent."""
    assert jsontext.indent(f'{{"a":{token},"b":[ {token} ]}}'.encode()) == (
        f'{{\n  "a": {token},\n  "b": [\n    {token}\n  ]\n}}'.encode()
    )


@pytest.mark.parametrize("empty", [b"{ }", b"[\n]", b"{}", b"[]"])
def test_an_empty_object_or_array_stays_on_its_line(empty: bytes) -> None:
    """As JSON.stringify does it, also with white space inside."""
    short = re.sub(rb"\s", b"", empty)
    assert jsontext.indent(b'{"a":' + empty + b"}") == b'{\n  "a": ' + short + b"\n}"
    assert jsontext.indent(empty) == short


def test_a_deep_text_is_indented_without_recursion() -> None:
    """Depth costs no stack."""
    deep = b'{"a":' * 1000 + b"1" + b"}" * 1000
    assert re.sub(rb"\s", b"", jsontext.indent(deep)) == deep


@given(_OBJECTS, st.booleans(), st.sampled_from([None, 2, "\t"]))
def test_each_member_is_found_where_it_stands(
    value: dict[str, Any], ascii_only: bool, indent: str | int | None
) -> None:
    """The span of each key, and of no other, is the text of its value."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    # Lone surrogates are legal as escapes only.
    data = re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m.group()):04x}", text).encode()
    for key, item in value.items():
        found = jsontext.span(data, key)
        assert found is not None
        assert json.loads(data[found[0] : found[1]]) == item
        assert data[found[0] : found[1]] == data[found[0] : found[1]].strip()
    assert [name for name, _, _ in jsontext.members(data)] == list(value)
    assert jsontext.span(data, "no such key, surely") is None


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (b'{"updatedAt":1}', b"1"),
        (b'{"updatedAt" : 1 ,"b":2}', b"1"),
        (b'{\n"b" : {"updatedAt":9} ,\t"updatedAt"\n:\n 12\n}', b"12"),
        (b'{"a":{"updatedAt":1},"updatedAt":2,"c":{"updatedAt":3}}', b"2"),
        (b'{"a":[{"updatedAt":1},"updatedAt"],"updatedAt":2}', b"2"),
        (b'{"updatedAt":1,"updatedAt":2}', b"2"),
        (b'{"updatedAt":1,"b":3,"updated\\u0041t":2}', b"2"),
        (b'{"updated\\u0041t":2,"x":"updatedAt"}', b"2"),
        (b'{"x":"\\"updatedAt\\":5","updatedAt":{"updatedAt":6}}', b'{"updatedAt":6}'),
        (b'{"x":"updatedAt","updatedAt":"a,}b"}', b'"a,}b"'),
        (b'{"":1,"updatedAt":[1,{"b":[]}],"c":{}}', b'[1,{"b":[]}]'),
        (b'{"x":"\\\\","updatedAt":-1.5e+3}', b"-1.5e+3"),
        (b' {"updatedAt":1} ', b"1"),
    ],
)
def test_the_value_that_counts_is_found(text: bytes, span: bytes) -> None:
    """Escaped keys, repeated keys, and the same key further inside or in a string don't mislead."""
    found = jsontext.span(text, "updatedAt")
    assert found is not None
    assert text[found[0] : found[1]] == span


@pytest.mark.parametrize(
    "text", [b"{}", b'{"a":{"k":1}}', b'{"a":"k"}', b'{"a":["k",{"k":1}]}', b'{"kk":1}', b'{"K":1}']
)
def test_a_key_that_is_not_on_the_outermost_level_is_not_found(text: bytes) -> None:
    """Only members of the object itself are looked at."""
    assert jsontext.span(text, "k") is None
