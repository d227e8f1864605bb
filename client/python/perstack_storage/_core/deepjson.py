"""JSON to and from text without recursion: values of any depth, on any Python, in any depth of calls."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, cast

import orjson

from perstack_storage._core.errors import NestedTooDeeply

NESTING_MAX = 10_000
"""A daemon takes 512 levels, and older ones took up to 9,900: what they stored can be read."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"null": None, "true": True, "false": False}
_scan_string: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]


def too_deep() -> NestedTooDeeply:
    """Returns the error to raise."""
    return NestedTooDeeply(f"a value is nested more than {NESTING_MAX:,} levels deep, or holds itself")


def decode(text: str, parse_int: Callable[[str], Any]) -> Any:  # noqa: PLR0912 - a loop is what it is for
    """Returns the value of a JSON text.

    Raises:
        ValueError: it is no JSON.
        NestedTooDeeply: it has more than `NESTING_MAX` levels.
    """
    stack: list[
        tuple[Any, str | None]
    ] = []  # containers that are open, each with its key in the one around it
    key: str | None = None
    at = _skip(text, 0)
    while True:
        char = text[at : at + 1]
        value: Any
        if char in {"{", "["}:
            value = {} if char == "{" else []
            inner = _skip(text, at + 1)
            if text[inner : inner + 1] != ("}" if char == "{" else "]"):
                stack.append((value, key))
                if len(stack) > NESTING_MAX:
                    raise too_deep()
                key, at = _key(text, inner) if char == "{" else (None, inner)
                continue
            at = inner + 1
        else:
            value, at = _scalar(text, at, char, parse_int)
        at = _skip(text, at)
        while stack:  # a value is complete: it may complete those around it
            container, key_around = stack[-1]
            if key is None:
                container.append(value)
            else:
                container[key] = value
            if text.startswith(",", at):
                break
            if not text.startswith("]" if key is None else "}", at):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            stack.pop()
            value, key, at = container, key_around, _skip(text, at + 1)
        else:
            if at < len(text):
                raise json.JSONDecodeError("Extra data", text, at)
            return value
        at = _skip(text, at + 1)
        if key is not None:
            key, at = _key(text, at)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _key(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    key, at = _scan_string(text, at + 1, True)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    return key, _skip(text, at + 1)


def _scalar(text: str, at: int, char: str, parse_int: Callable[[str], Any]) -> tuple[Any, int]:
    if char == '"':
        return _scan_string(text, at + 1, True)
    found = _NUMBER.match(text, at)
    if found is not None:
        whole, fraction, exponent = found.groups()
        is_float = fraction is not None or exponent is not None
        return (float(found.group()) if is_float else parse_int(whole)), found.end()
    for word, value in _WORDS.items():
        if text.startswith(word, at):
            return value, at + len(word)
    raise json.JSONDecodeError("Expecting value", text, at)


class _Level:
    """An object or array on the way to the value that is written."""

    def __init__(self, value: Any) -> None:
        self.is_object = isinstance(value, Mapping)
        self.items: Iterator[Any] = iter(value.items()) if self.is_object else iter(value)
        self.begun = False
        self.key: str | int = -1


def encode(value: object) -> str:
    """Returns a value as JSON in ASCII, without spaces; NaN and infinities become null.

    Raises:
        TypeError: something in the value has no form in JSON; the message says what and where.
        NestedTooDeeply: it has more than `NESTING_MAX` levels, or holds itself.
    """
    pieces: list[str] = []
    stack: list[_Level] = []
    while True:
        if isinstance(value, (Mapping, list, tuple)):
            level = _Level(value)
            stack.append(level)
            if len(stack) > NESTING_MAX:
                raise too_deep()
            pieces.append("{" if level.is_object else "[")
        else:
            pieces.append(_text_of(value, stack))
        while stack:
            level = stack[-1]
            item = next(level.items, _END)
            if item is not _END:
                break
            pieces.append("}" if level.is_object else "]")
            stack.pop()
        else:
            return "".join(pieces)
        if level.begun:
            pieces.append(",")
        level.begun = True
        if level.is_object:
            key, value = cast("tuple[object, object]", item)
            if not isinstance(key, str):
                kind = type(key).__name__
                raise TypeError(f"{_place(stack[:-1])}: a key must be a string, not {kind}")
            level.key = key
            pieces.append(encode_basestring_ascii(key) + ":")
        else:
            level.key, value = int(level.key) + 1, item


_END = object()


def _text_of(value: object, stack: list[_Level]) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        if "ecursion" in str(error):
            raise too_deep() from None
        raise TypeError(f"{_place(stack)}: {error}") from None


def _place(stack: list[_Level]) -> str:
    return "value" + "".join(
        f".{level.key}" if level.is_object else f"[{level.key}]" for level in stack if level.begun
    )
