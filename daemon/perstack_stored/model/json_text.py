"""Works on JSON text by its tokens, because decoding and encoding could change a number. No I/O.

The input was checked to be one JSON object when it was stored. All functions take linear time, and no more
memory than a copy of the text. The patterns are possessive: others keep 60 bytes for each escape in a string.
"""

import json
import re
from collections.abc import Iterator

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR = rb'[^\s{}\[\]:,"]++'
TOKEN = re.compile(rb"%b|[{}\[\]:,]|%b" % (_STRING, _SCALAR), re.DOTALL)
_TOKEN_OR_QUOTE = re.compile(TOKEN.pattern + b'|"', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_WORD = re.compile(rb'[^\s{}\[\]:,"]*+')
# A regular expression holds the interpreter's lock for as long as it runs.
_WINDOW_BYTES = 1 << 16
_QUOTE = ord('"')
_ALONE = b'{}[]:,"'
_INDENT = b"  "
LAYOUT_FACTOR = 4
LAYOUT_BYTES_MORE = 64 << 10
LAYOUT_BYTES_MAX = 16 << 20
"""An indented text of more bytes than this, or than this multiple of the value, is not made."""

_SHALLOW_LEVELS = 8


def _shallow() -> bytes:
    """Pattern of an object or array nested at most `_SHALLOW_LEVELS` deep."""
    plain = rb'[^"{}\[\]]++|%b' % _STRING
    pattern = rb"[{\[](?:%b)*+[}\]]" % plain
    for _ in range(_SHALLOW_LEVELS - 1):
        pattern = rb"[{\[](?:%b|%b)*+[}\]]" % (plain, pattern)
    return pattern


_CONTAINER = re.compile(_shallow(), re.DOTALL)
_NEXT_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|%b)*+(?=[{}\[\]])' % _STRING, re.DOTALL)
_KEY = re.compile(rb"[\s,]*+(%b)\s*+:\s*+" % _STRING, re.DOTALL)
_FLAT_VALUE = re.compile(rb"%b|%b" % (_STRING, _SCALAR), re.DOTALL)


def tokens(text: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Start and end of each token, found in short steps for tokens of any length."""
    start, size = 0, len(text)
    while start < size:
        end = start + _WINDOW_BYTES
        for match in _TOKEN_OR_QUOTE.finditer(text, start, end):
            first, last = match.span()
            if last - first == 1 and text[first] == _QUOTE:
                start = _end_of(_IN_STRING, text, last) + 1
                yield first, start
                break
            if last == end < size and text[first] not in _ALONE:
                start = _end_of(_IN_WORD, text, last)
                yield first, start
                break
            yield first, last
        else:
            start = end


def _end_of(inside: re.Pattern[bytes], text: bytes | bytearray, start: int) -> int:
    """End of a token that began before `start`, and goes on as long as `inside` matches."""
    while True:
        match = inside.match(text, start, start + _WINDOW_BYTES)
        assert match is not None, "the pattern matches an empty text too"
        if match.end() < min(start + _WINDOW_BYTES - 1, len(text)) or match.end() == start:
            return match.end()
        start = match.end()


def indent(text: bytes) -> bytes:
    """Indent a job for its file: the same tokens, laid out as JSON.stringify(value, null, 2) does.

    Deep nesting can make the layout many times larger. Beyond a bound the text stays as it is.
    """
    most = min(LAYOUT_FACTOR * len(text) + LAYOUT_BYTES_MORE, LAYOUT_BYTES_MAX)
    if len(text) > most:
        return text
    out = bytearray()
    depth = 0
    opened = False  # the last token opened an object or array: an empty one stays on one line
    for match in TOKEN.finditer(text):
        token = match.group()
        if token in (b"}", b"]"):
            depth -= 1
            if not opened:
                out += b"\n" + _INDENT * depth
            opened = False
            out += token
            continue
        if opened:
            out += b"\n" + _INDENT * depth
            opened = False
        if token == b",":
            out += b",\n" + _INDENT * depth
            if len(out) > most:
                return text
        elif token == b":":
            out += b": "
        else:
            out += token
            if token in (b"{", b"["):
                depth += 1
                opened = True
                if len(out) > most:
                    return text
    return text if len(out) > most else bytes(out)


def compact(text: bytes) -> bytes:
    """The same tokens without white space between them."""
    out = bytearray()
    for match in TOKEN.finditer(text):
        out += match.group()
    return bytes(out)


def layouts(text: bytes) -> Iterator[bytes]:
    """Yield usual layouts of the same tokens: unchanged, compact, and as Python's json writes them.

    The text may be anything, as other programs may have changed the file.
    """
    yield text
    for between in (b"", b" "):
        out = bytearray()
        for match in _TOKEN_OR_QUOTE.finditer(text):
            token = match.group()
            if token == b'"':
                return  # a string without an end; going on would search the rest for each quote in it
            out += token
            if token in (b",", b":"):
                out += between
        yield bytes(out)


def members(text: bytes) -> Iterator[tuple[str, int, int]]:
    """Key, and start and end of the value, of each member of the outermost object."""
    for key, start, end in _members(text):
        yield json.loads(key), start, end


def span(text: bytes, key: str) -> tuple[int, int] | None:
    """Start and end of the value of `key`, without white space; of the last one, if there are two."""
    found = None
    plain = json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for name, start, end in _members(text):
        if name == plain or (b"\\" in name and json.loads(name) == key):
            found = (start, end)
    return found


def _members(text: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The same, with the keys in their encoded form."""
    end = text.index(b"{") + 1
    while (key := _KEY.match(text, end)) is not None:
        start = key.end()
        end = _end_of_value(text, start)
        yield key[1], start, end


def _end_of_value(text: bytes, start: int) -> int:
    flat = _FLAT_VALUE.match(text, start)
    if flat is not None:
        return flat.end()
    depth, at = 0, start
    while at < len(text):
        whole = _CONTAINER.match(text, at) if text[at] in b"{[" else None
        if whole is not None:
            at = whole.end()
        else:
            depth += 1 if text[at] in b"{[" else -1
            at += 1
        if not depth:
            return at
        bracket = _NEXT_BRACKET.match(text, at)
        at = len(text) if bracket is None else bracket.end()
    raise ValueError("it is no JSON")
