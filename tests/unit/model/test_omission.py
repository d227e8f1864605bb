"""Fields that are left out: the rest of the text stays byte for byte, in linear time."""

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from perstack_stored.model import omission
from perstack_stored.model.omission import NotJsonError, fields_of, pieces_without, without

KEYS = ["a", "b", "c", '"', "\\", "é", "", "messages", "x.y"]
LEAVES = [1, -2.5, "s", '}{"[\\', "\\", "", None, True, "é\u2028", "]]]", "\ud800"]


def left(value: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The same, decoded."""
    return {
        key: left(item, fields[key]) if fields.get(key) and isinstance(item, dict) else item
        for key, item in value.items()
        if key not in fields or fields[key] is not None
    }


def some_value(random: Random, depth: int = 0) -> Any:
    kind = random.random()
    if depth < 5 and kind < 0.35:
        return some_object(random, depth + 1)
    if depth < 5 and kind < 0.5:
        return [some_value(random, depth + 1) for _ in range(random.randint(0, 4))]
    return random.choice(LEAVES)


def some_object(random: Random, depth: int = 0) -> dict[str, Any]:
    return {random.choice(KEYS): some_value(random, depth) for _ in range(random.randint(0, 5))}


def some_text(random: Random, value: Any) -> bytes:
    """In one of the usual layouts, or an odd one."""
    between = random.choice(((",", ":"), (", ", ": "), (" ,\n\t", " : ")))
    text = json.dumps(
        value, ensure_ascii="\ud800" in repr(value) or random.random() < 0.5, separators=between
    )
    return random.choice(("%s", " %s\n")).replace("%s", text).encode("utf-8", "surrogatepass")


def sliced(text: bytes, size: int) -> Iterator[bytes]:
    return (text[i : i + size] for i in range(0, len(text), size))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_is_the_value_without_the_fields(seed: int) -> None:
    """For any value, layout and cut into pieces; nothing changes where there is nothing to leave out."""
    random = Random(seed)
    for _ in range(300):
        value = some_object(random)
        paths = [".".join(random.choices(KEYS, k=random.randint(1, 3))) for _ in range(random.randint(1, 4))]
        fields = fields_of(paths)
        text = some_text(random, value)
        expected = left(value, fields)
        found = without(text, fields)
        assert json.loads(found) == expected, (text, paths)
        for size in (1, random.randint(2, 9), len(text)):
            assert json.loads(b"".join(pieces_without(sliced(text, size), fields))) == expected
        if expected == value:
            assert found == text
            assert b"".join(pieces_without(sliced(text, 7), fields)) == text


@pytest.mark.parametrize(
    ("text", "paths", "rest"),
    [
        (b'{"a":1,"b":2,"c":3}', ["b"], b'{"a":1,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', ["a", "c"], b'{"b":2}'),
        (b'{"a":1}', ["a"], b"{}"),
        (b"{}", ["a"], b"{}"),
        (b'{ "a" : 1 , "b" : 1e400 , "c" : 3.0 }', ["a"], b'{  "b" : 1e400 , "c" : 3.0 }'),
        (b'{ "a" : 1 , "b" : 2 , "c" : 3 }', ["b"], b'{ "a" : 1 , "c" : 3 }'),
        # A key that stands twice, or is written with escapes, is left out each time.
        (b'{"a":1,"b":{"a":2},"a":3}', ["a"], b'{"b":{"a":2}}'),
        (rb'{"\u0061":1,"b":2}', ["a"], b'{"b":2}'),
        (
            rb'{"b":{"\u0061":1,"x":"\ud800"},"b":{"a":5,"y":[]}}',
            ["b.a"],
            rb'{"b":{"x":"\ud800"},"b":{"y":[]}}',
        ),
        # A path leads through objects only, and one within another adds nothing.
        (b'{"b":[{"a":1}],"c":"a"}', ["b.a", "c.a"], b'{"b":[{"a":1}],"c":"a"}'),
        (b'{"b":{"a":1},"c":1}', ["b", "b.a"], b'{"c":1}'),
        (b'{"b":{"a":1},"c":1}', ["b.a", "b"], b'{"c":1}'),
    ],
)
def test_examples(text: bytes, paths: list[str], rest: bytes) -> None:
    fields = fields_of(paths)
    assert without(text, fields) == rest
    assert b"".join(pieces_without(sliced(text, 3), fields)) == rest


N = 1 << 14
HOSTILE = {
    "members": b"{" + b",".join([b'"a":1', b'"b":1'] * N) + b"}",
    "containers": b"{" + b",".join([b'"b":[]'] * N) + b"}",
    "deep containers": b"{" + b",".join([b'"b":' + b"[" * 12 + b"]" * 12] * N) + b"}",
    "deep": b'{"b":' + b"[" * 9000 + b"]" * 9000 + b',"a":1}',
    "brackets": b'{"b":[' + b",".join([b"[]"] * 8 * N) + b"]}",
    "quoted brackets": b'{"b":[' + b",".join([b'"[{"'] * 8 * N) + b"]}",
    "escapes": b'{"b":"' + rb"\\" * 32 * N + b'","a":"' + rb"\"" * 32 * N + b'"}',
    "white space": b'{"a":1,' + b" " * 32 * N + b'"b":2' + b" " * 32 * N + b"}",
    "keys": b'{"' + b"b" * 32 * N + b'":1,"b":1}',
    "escaped keys": b"{" + b",".join([rb'"\u0062":1'] * N) + b"}",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_time_is_linear_and_memory_holds_some_pieces(shape: str) -> None:
    """Of a text four times as long each time; a quadratic search would take minutes."""
    text, fields = HOSTILE[shape], fields_of(["b"])
    start = time.process_time()
    cutter = omission._Cutter(sliced(text, 1 << 16))
    rest = bytearray()
    for buffer in cutter.run(fields):
        rest += buffer
        assert len(cutter._text) <= 4 << 16
    assert time.process_time() - start < 5
    assert "b" not in json.loads(rest) if shape != "deep" else rest == b'{"a":1}'


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a', b'{"a":', b'{"a":[', b'{"a":"\\', b'{"a":1', b'{"b":"\\"']
)
def test_a_text_that_is_cut_ends_with_an_error(text: bytes) -> None:
    with pytest.raises(NotJsonError):
        list(pieces_without(sliced(text, 2), fields_of(["b"])))
