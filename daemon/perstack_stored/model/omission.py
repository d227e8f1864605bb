"""Leaves fields out of a JSON object, and all its other bytes as they are. No I/O.

A field is named by its key, or by keys with dots between them: `checkpoint.messages`. A member that is left
out goes with its comma and the white space before it, each time that its key stands in the object. Keys are
compared as they are decoded; a path leads through objects only.

Linear in the size of the text. Of a large value that comes in pieces, memory holds some pieces.
"""

import json
import re
from collections.abc import Generator, Iterable, Iterator
from itertools import accumulate
from typing import Any

import msgspec

from .edits import Edit
from .nesting import steps_outside_strings

Fields = dict[str, Any]
"""Keys to leave out (None), or to look into (`Fields`)."""
Buffer = bytes | memoryview

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEEP: Fields = {}
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_WORD = re.compile(rb'[^\s{}\[\]:,"]*+')
_BETWEEN = re.compile(rb"[\s,]*+")
_COLON = re.compile(rb"[\s:]*+")
_SPACE = re.compile(rb"\s*+")
_STRING_OR_BRACKET = re.compile(_STRING.pattern + rb"|[{}\[\]]", re.DOTALL)
_QUOTE, _OPEN, _CLOSE, _BACKSLASH = b'"{}\\'
_OPENING = b"{["
_KEY_BYTES_MAX = 4096  # a longer key is none of those to leave out, in any escaping
_BETWEEN_BYTES_MAX = 1 << 16  # of more white space between two members nothing is kept
_WINDOW_BYTES = 1 << 16  # a regular expression holds the interpreter's lock for as long as it runs
_SLICE_BYTES_MIN = 256
_PIECE_BYTES = 1 << 18
_BUFFERS_PER_STEP = 256


class NotJsonError(ValueError):
    """The text is not one JSON object. It was checked when it was stored."""


def fields_of(paths: Iterable[str]) -> Fields:
    """The fields of some paths. A path that leads into a field of another one adds nothing."""
    fields: Fields = {}
    for path in paths:
        *outer, last = path.split(".")
        inner: Fields | None = fields
        for key in outer:
            inner = None if inner is None else inner.setdefault(key, {})
        if inner is not None:
            inner[last] = None
    return fields


def without(text: bytes, fields: Fields) -> bytes:
    """A small object without some fields."""
    edits: list[Edit] = []
    if not _plain_edits(memoryview(text), fields, 0, edits):
        return b"".join(pieces_without([text], fields))
    kept: list[Buffer] = []
    start = 0
    for first, end, _ in edits:
        kept.append(memoryview(text)[start:first])
        start = end
    kept.append(memoryview(text)[start:])
    return b"".join(kept)


def _plain_edits(text: memoryview, fields: Fields, base: int, edits: list[Edit]) -> bool:
    """Add the edits of an object that begins at offset `base`, if its layout is the usual one.

    Usual is what JSON.stringify writes: no white space, no escape in a key, no key twice. Then members stand
    where their sizes say. Anything else makes the text longer than the sum.
    """
    try:
        members = _members.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    at, kept = 1, False
    for key, value in members.items():
        start = at + (len(key) if key.isascii() else len(key.encode())) + 3
        end = start + len(memoryview(value))
        inner = fields.get(key, _KEEP)
        if inner is None:
            edits.append((base + at - 1, base + end, b"") if kept else (base + at, base + end + 1, b""))
        else:
            kept = True
            if (
                inner
                and text[start] == _OPEN
                and not _plain_edits(text[start:end], inner, base + start, edits)
            ):
                return False
        at = end + 1
    if members and not kept:
        first, end, _ = edits[-1]
        edits[-1] = (first, end - 1, b"")  # no comma follows the last one
    return at == len(text) if members else len(text) == len(b"{}")


def pieces_without(pieces: Iterable[Buffer], fields: Fields) -> Iterator[bytes]:
    """The pieces of an object without some fields; an empty piece is a step.

    Raises:
        NotJsonError: it is no object.
    """
    out: list[Buffer] = []
    size = 0
    for count, buffer in enumerate(_Cutter(pieces).run(fields)):
        out.append(buffer)
        size += len(buffer)
        if size >= _PIECE_BYTES:
            yield b"".join(out)
            out, size = [], 0
        elif not count % _BUFFERS_PER_STEP:
            yield b""
    yield b"".join(out)


class _Cutter:
    """Goes through a text once. Its methods yield what is kept, and move the cursor `_at` past it."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self._pieces = iter(pieces)
        self._text = b""
        self._at = 0

    def run(self, fields: Fields) -> Iterator[Buffer]:
        """Yield the object without some fields."""
        yield from self._while(_SPACE, keep=True)
        yield from self._value(fields)
        yield self._text[self._at :]
        yield from self._pieces

    def _value(self, fields: Fields) -> Iterator[Buffer]:
        if fields and self._first() == _OPEN:
            yield from self._object(fields)
        else:
            yield from self._whole(keep=True)

    def _object(self, fields: Fields) -> Iterator[Buffer]:
        yield b"{"
        self._at += 1
        kept = False
        while True:
            between = self._between()
            if self._first() == _CLOSE:
                yield between.replace(b",", b"") + b"}"
                self._at += 1
                return
            inner = self._inner(fields)
            keep = inner is not None
            if keep:
                yield between if kept else between.replace(b",", b"")
                kept = True
            yield from self._whole(keep=keep)  # the key
            yield from self._while(_COLON, keep=keep)
            if inner:
                yield from self._value(inner)
            else:
                yield from self._whole(keep=keep)

    def _between(self) -> bytes:
        """Comma and white space before a member, or before the end of the object."""
        parts: list[bytes] = []
        size = 0
        while True:
            found = _BETWEEN.match(self._text, self._at, self._at + _WINDOW_BYTES)
            assert found is not None, "the pattern matches an empty text too"
            parts.append(found[0])
            size += len(found[0])
            self._at = found.end()
            if size > _BETWEEN_BYTES_MAX:
                parts = [b"," if any(b"," in part for part in parts) else b""]
            if self._first() not in b" \t\r\n,":
                return b"".join(parts)

    def _inner(self, fields: Fields) -> Fields | None:
        """What `fields` says of the member whose key begins at the cursor."""
        while True:
            key = _STRING.match(self._text, self._at, self._at + _KEY_BYTES_MAX)
            if key is not None:
                text = key[0]
                name: str = json.loads(text) if b"\\" in text else text[1:-1].decode()
                inner: Fields | None = fields.get(name, _KEEP)
                return inner
            if len(self._text) - self._at >= _KEY_BYTES_MAX or not self._more():
                return _KEEP

    # --- one value ---------------------------------------------------------------------------------

    def _whole(self, *, keep: bool) -> Iterator[Buffer]:
        """One value, or a key."""
        first = self._first()
        if first in _OPENING:
            yield from self._container(keep=keep)
        elif first == _QUOTE:
            yield from self._take(self._at + 1, keep=keep)
            yield from self._while(_IN_STRING, keep=keep)
            if self._first() != _QUOTE:
                raise NotJsonError
            yield from self._take(self._at + 1, keep=keep)
        else:
            start = self._at
            yield from self._while(_IN_WORD, keep=keep)
            if self._at == start and first not in b"-0123456789tfn":
                raise NotJsonError

    def _container(self, *, keep: bool) -> Iterator[Buffer]:
        """An object or array. Slices grow, so that a short one costs little."""
        depth, in_string = 0, False
        size = _SLICE_BYTES_MIN
        while True:
            piece = self._slice(size)
            steps, ends_in_string = steps_outside_strings(piece, in_string=in_string)
            closing = steps.count(b"\xff")
            if closing >= depth:
                depths = list(accumulate(memoryview(steps).cast("b"), initial=depth))[1:]
                if 0 in depths:
                    end = _bracket(piece, depths.index(0) + 1, in_string=in_string)
                    yield from self._take(self._at + end, keep=keep)
                    return
            depth += len(steps) - 2 * closing
            in_string = ends_in_string
            yield from self._take(self._at + len(piece), keep=keep)
            size = min(2 * size, _WINDOW_BYTES)

    def _slice(self, size: int) -> bytes:
        """The next bytes, at most `size` and one more: an escape is not cut in two."""
        self._first()
        while True:
            piece = self._text[self._at : self._at + size]
            if not (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                return piece
            size = len(piece) + 1
            if self._at + size > len(self._text) and not self._more():
                raise NotJsonError

    def _while(self, inside: re.Pattern[bytes], *, keep: bool) -> Iterator[Buffer]:
        """Text as long as `inside` matches."""
        while True:
            end = min(self._at + _WINDOW_BYTES, len(self._text))
            found = inside.match(self._text, self._at, end)
            assert found is not None, "the patterns match an empty text too"
            yield from self._take(found.end(), keep=keep)
            # An escape that the window cuts in two stops the match as well.
            if self._at < end and not (self._at == end - 1 and self._text[self._at] == _BACKSLASH):
                return
            if self._at + 1 >= len(self._text) and not self._more():
                return

    # --- text --------------------------------------------------------------------------------------

    def _take(self, end: int, *, keep: bool) -> Generator[Buffer, None, None]:
        yield self._text[self._at : end] if keep else b""
        self._at = end

    def _first(self) -> int:
        """The byte at the cursor."""
        if self._at >= len(self._text) and not self._more():
            raise NotJsonError
        return self._text[self._at]

    def _more(self) -> bool:
        """Append the next piece; False at the end."""
        for piece in self._pieces:
            if len(piece):
                self._text = self._text[self._at :] + bytes(piece)
                self._at = 0
                return True
        return False


def _bracket(piece: bytes, number: int, *, in_string: bool) -> int:
    """End of a bracket outside of strings; they are counted from 1."""
    start = 0
    if in_string:
        rest = _IN_STRING.match(piece)
        assert rest is not None, "the pattern matches an empty text too"
        start = rest.end() + 1
    for found in _STRING_OR_BRACKET.finditer(piece, start):
        number -= found[0][:1] != b'"'
        if not number:
            return found.end()
    raise NotJsonError
