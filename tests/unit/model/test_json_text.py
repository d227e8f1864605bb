"""JSON handled by its tokens, so that no number and no surrogate changes."""

import contextlib
import json
import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.model import json_text, masking

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
    assert json_text.indent(text) == wanted
    assert json_text.indent(wanted) == wanted


@pytest.mark.parametrize(
    "token", ["1e400", "-0", "1.0", "1E+05", "123456789012345678901234567890", r'"\ud800\/\u0041"', "-0.0e-0"]
)
def test_indenting_changes_no_token(token: str) -> None:
    """Numbers beyond a double and escapes that nobody needs stay as they were sent."""
    assert json_text.indent(f'{{"a":{token},"b":[ {token} ]}}'.encode()) == (
        f'{{\n  "a": {token},\n  "b": [\n    {token}\n  ]\n}}'.encode()
    )


@pytest.mark.parametrize("empty", [b"{ }", b"[\n]", b"{}", b"[]"])
def test_an_empty_object_or_array_stays_on_its_line(empty: bytes) -> None:
    """As JSON.stringify does it, also with white space inside."""
    short = re.sub(rb"\s", b"", empty)
    assert json_text.indent(b'{"a":' + empty + b"}") == b'{\n  "a": ' + short + b"\n}"
    assert json_text.indent(empty) == short


def test_a_deep_text_is_indented_without_recursion() -> None:
    """Depth costs no stack."""
    deep = b'{"a":' * 150 + b"1" + b"}" * 150
    assert re.sub(rb"\s", b"", json_text.indent(deep)) == deep
    assert json_text.indent(deep) != deep


@given(_OBJECTS, st.booleans(), st.sampled_from([None, 2, "\t"]))
def test_each_member_is_found_at_its_place(
    value: dict[str, Any], ascii_only: bool, indent: str | int | None
) -> None:
    """The span of each key, and of no other, is the text of its value."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    # Lone surrogates are legal as escapes only.
    data = re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m.group()):04x}", text).encode()
    for key, item in value.items():
        found = json_text.span(data, key)
        assert found is not None
        assert json.loads(data[found[0] : found[1]]) == item
        assert data[found[0] : found[1]] == data[found[0] : found[1]].strip()
    assert [name for name, _, _ in json_text.members(data)] == list(value)
    assert json_text.span(data, "no such key, surely") is None


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
    found = json_text.span(text, "updatedAt")
    assert found is not None
    assert text[found[0] : found[1]] == span


@pytest.mark.parametrize(
    "text", [b"{}", b'{"a":{"k":1}}', b'{"a":"k"}', b'{"a":["k",{"k":1}]}', b'{"kk":1}', b'{"K":1}']
)
def test_a_key_that_is_not_on_the_outermost_level_is_not_found(text: bytes) -> None:
    """Only members of the object itself are looked at."""
    assert json_text.span(text, "k") is None


# --- what it costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"id":"j","x":' + b"[" * 840 + b",".join([b"0"] * 20_000) + b"]" * 840 + b"}",
        b'{"x":' + b"[" * 50 + b",".join([b"0"] * 20_000) + b"]" * 50 + b',"id":"j"}',
    ],
    ids=["tower", "wide at the bottom", "less deep"],
)
def test_a_layout_beyond_its_bound_is_not_made(text: bytes) -> None:
    """What would be many times as large laid out stays as it was sent, and nothing large is made of it."""
    tracemalloc.start()
    found = json_text.indent(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is text
    assert peak < 2 * (json_text.LAYOUT_FACTOR * len(text) + json_text.LAYOUT_BYTES_MORE)


def test_a_layout_within_its_bound_is_made_to_the_last_byte() -> None:
    """The bound is where the text says it is: a byte more of the value makes room for four of its layout."""

    def size(zeros: int, spaces: int) -> tuple[bytes, int]:
        value = b'{"x":' + b"[" * 400 + b",".join([b"0"] * zeros) + b"]" * 400 + b" " * spaces + b"}"
        levels = b"".join(b"\n" + b"  " * depth + b"]" for depth in range(400, 0, -1))
        opened = b"".join(b"[\n" + b"  " * (depth + 1) for depth in range(1, 401))
        inner = (b",\n" + b"  " * 401).join([b"0"] * zeros)
        return value, len(b'{\n  "x": ' + opened + inner + levels + b"\n}")

    value, laid_out = size(1000, 0)
    short = laid_out - json_text.LAYOUT_BYTES_MORE - json_text.LAYOUT_FACTOR * len(value)
    assert short > 0
    spaces = -(-short // json_text.LAYOUT_FACTOR)
    assert len(json_text.indent(size(1000, spaces)[0])) == laid_out
    assert json_text.indent(size(1000, spaces - 1)[0]) == size(1000, spaces - 1)[0]


def test_a_text_beyond_the_largest_layout_stays_as_it_is() -> None:
    """Not even begun: there would be no end to its tokens."""
    text = b'{"x":[' + b"0," * (json_text.LAYOUT_BYTES_MAX // 2) + b"0]}"
    assert json_text.indent(text) is text


_COSTLY = {
    "escapes": b'"' + rb"\\\\" * 500_000 + b'"',
    "surrogates": b'"' + rb"\ud800" * 160_000 + b'"',
    "letters": b'"' + b"a" * 1_000_000 + b'"',
    "white space": b"[" + b" " * 1_000_000 + b"]",
    "digits": b"1" * 1_000_000,
    "arrays": b"[" + b"[]," * 20_000 + b"0]",
    "deep, with a tail at each level": b"[0,[1]," * 300 + b"0" + b"]" * 300,
    "addresses": b'"' + b"://a" * 250_000 + b'"',
    "an address": b'"://' + b"a" * 1_000_000 + b'"',
}


@pytest.mark.parametrize("text", list(_COSTLY.values()), ids=list(_COSTLY))
def test_the_work_by_tokens_takes_no_more_memory_than_copies(text: bytes) -> None:
    """Patterns that could go back keep something for each escape; these can't."""
    text = b'{"x":' + text + b',"updatedAt":5}'
    tracemalloc.start()
    assert json_text.span(text, "updatedAt") == (len(text) - 2, len(text) - 1)
    assert json_text.indent(text).translate(None, b" \n") == text.translate(None, b" ")
    assert len(list(json_text.layouts(text))) == 3
    assert masking.mask(text) == text
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(text) + (1 << 20)


@pytest.mark.parametrize("end", [b"", b"\\", b"]}", b'"'], ids=repr)
def test_a_damaged_file_is_not_looked_through_again_and_again(end: bytes) -> None:
    """A string without an end, full of quotes, is met once and not at each quote in it."""

    def cost(size: int) -> float:
        text = b'{"x":1,"y":"' + rb"\"" * size + end
        before = time.process_time()
        list(json_text.layouts(text))
        with contextlib.suppress(ValueError):
            json_text.span(text, "z")
        return time.process_time() - before

    assert min(cost(400_000) for _ in range(3)) < 16 * min(cost(100_000) for _ in range(3)) + 0.05


@given(_OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_what_is_compact_is_the_same_for_each_layout(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    """An import takes two layouts of one job for the same."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    wanted = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    assert json_text.compact(text) == wanted.encode("utf-8", "surrogatepass")


@given(st.integers(0, 40), _OBJECTS)
def test_the_end_of_a_deep_member_is_found(levels: int, value: dict[str, Any]) -> None:
    """Deeper than one pattern goes, too."""
    inner = re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m.group()):04x}", json.dumps(value))
    deep = "[1," * levels + inner + ",[]]" * levels
    text = f'{{"a":{deep} ,"b":2}}'.encode()
    assert [(key, text[start:end]) for key, start, end in json_text.members(text)] == [
        ("a", deep.encode()),
        ("b", b"2"),
    ]


@given(_OBJECTS, st.booleans(), st.sampled_from([None, 0, 1, 9, "\t"]), st.sampled_from([2, 3, 8, 1 << 16]))
def test_tokens_are_the_same_with_steps_of_any_length(
    value: dict[str, Any], ascii_only: bool, indent: str | int | None, step: int
) -> None:
    """A step may end within a string, an escape, a number or white space."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_WINDOW_BYTES", step)
        found = [text[start:end] for start, end in json_text.tokens(text)]
    assert found == json_text.TOKEN.findall(text)
