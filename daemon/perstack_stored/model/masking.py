"""Masks secrets in run settings, for people who look at stored values. No I/O.

Works on the tokens of the text, so that all other text stays byte for byte as stored.
"""

import json
import re
from collections.abc import Iterator

from perstack_storage.protocol import SECRET_OBJECTS, SECRETS, folded

from . import json_text

MASK = b'"***"'
# https://user:password@host
_BEFORE_USER = re.compile(rb":(?:\\?/){2}\Z")
_BEFORE_USER_BYTES = 5
_STOPS = (b"/", b"?", b"#", b'"', b"\\")
_STOP = re.compile(rb'[/?#"\\]')
_KEY_BYTES_MAX = 1024  # a longer key is none of those that name a secret, in any escaping
_STEP_BYTES = 1 << 16  # a search holds the interpreter's lock for at most this much text
_PIECE_BYTES = 1 << 18
_TOKENS_PER_STEP = 4096
_OBJECT, _COMMA, _COLON, _QUOTE = b'{,:"'

Text = bytes | bytearray
Span = tuple[int, int]


def mask(setting: bytes) -> bytes:
    """Mask a stored run setting: `"***"` replaces each secret."""
    return b"".join(mask_pieces(setting))


def mask_pieces(setting: Text) -> Iterator[bytes | memoryview]:
    """Mask in pieces, with a step after each: a setting may be as large as any value."""
    view = memoryview(setting)
    copied = 0
    out: list[bytes | memoryview] = []
    size = 0
    for start, end, instead in _Masker(setting).hidden():
        while start - copied > _PIECE_BYTES:
            out.append(view[copied : copied + _PIECE_BYTES])
            copied += _PIECE_BYTES
            yield b"".join(out)
            out, size = [], 0
        if not instead:
            yield b""  # a step only: other threads would wait for a piece that holds many tokens
            continue
        out += (view[copied:start], instead)
        size += start - copied + len(instead)
        copied = end
        if size >= _PIECE_BYTES:
            yield b"".join(out)
            out, size = [], 0
    yield b"".join(out)
    for first in range(copied, len(view), _PIECE_BYTES):
        yield view[first : first + _PIECE_BYTES]


class _Masker:
    """Goes through the tokens once; `_all_secret` says of each open object whether it hides all values."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._is_object: list[bool] = []
        self._all_secret: list[bool] = []
        self._key: str | None = None
        self._expects_key = False
        self._hidden: Span | None = None  # depth and start of a container that is left out

    def hidden(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield replacements in order: start, end, replacing text. With b"" it is a step only."""
        text = self._text
        for steps, (start, end) in enumerate(json_text.tokens(text)):
            first = text[start]
            if first in b"{[":
                self._open(start, is_object=first == _OBJECT)
            elif first in b"}]":
                self._is_object.pop()
                self._all_secret.pop()
                self._expects_key = False
                if self._hidden is not None and self._hidden[0] == len(self._is_object):
                    yield self._hidden[1], end, MASK
                    self._hidden = None
            elif first == _COMMA:
                self._expects_key = self._is_object[-1]
            elif first == _COLON:
                self._expects_key = False
            elif self._expects_key:
                is_short = end - start <= _KEY_BYTES_MAX
                self._key = folded(json.loads(text[start:end])) if is_short else None
            elif self._hidden is None:
                if self._is_secret:
                    yield start, end, MASK
                elif first == _QUOTE:
                    yield from self._users(start, end)
            if not steps % _TOKENS_PER_STEP:
                copied = self._hidden[1] if self._hidden is not None else end
                yield copied, copied, b""

    @property
    def _is_secret(self) -> bool:
        """Whether the value that begins here is secret."""
        in_object = bool(self._is_object) and self._is_object[-1]
        return in_object and (self._all_secret[-1] or self._key in SECRETS)

    def _open(self, start: int, *, is_object: bool) -> None:
        if self._hidden is None and self._is_secret:
            self._hidden = (len(self._is_object), start)
        in_object = bool(self._is_object) and self._is_object[-1]
        self._all_secret.append(is_object and in_object and self._key in SECRET_OBJECTS)
        self._is_object.append(is_object)
        self._expects_key = is_object

    def _users(self, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """Ranges in a string with the user and password of URLs."""
        text, place = self._text, start
        steps = 0
        while (at := text.find(b"@", place, end)) >= 0:
            first = 1 + max(text.rfind(stop, place, at) for stop in _STOPS)
            last = at
            while last < end and (found := _STOP.search(text, last, last + _STEP_BYTES)) is None:
                last += _STEP_BYTES
            if found is not None:
                last = found.start()
            if first and _BEFORE_USER.search(text, max(start, first - _BEFORE_USER_BYTES), first):
                yield first, text.rfind(b"@", first, last), b"***"
            place = last
            steps += 1
            if not steps % _TOKENS_PER_STEP:
                yield place, place, b""
