"""Work on JSON text by its tokens, where decoding and encoding again could change a number. No I/O.

The input was checked to be one JSON object when it was stored.
"""

import json
import re
from collections.abc import Iterator

TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_INDENT = b"  "


def indent(text: bytes) -> bytes:
    """The same tokens, laid out as JSON.stringify(value, null, 2) does: the reference's form of job.json."""
    out: list[bytes] = []
    depth = 0
    opened = False  # the last token opened an object or array: an empty one stays on its line
    for match in TOKEN.finditer(text):
        token = match.group()
        if token in (b"}", b"]"):
            depth -= 1
            if not opened:
                out.append(b"\n" + _INDENT * depth)
            opened = False
            out.append(token)
            continue
        if opened:
            out.append(b"\n" + _INDENT * depth)
            opened = False
        if token == b",":
            out.append(b",\n" + _INDENT * depth)
        elif token == b":":
            out.append(b": ")
        else:
            out.append(token)
            if token in (b"{", b"["):
                depth += 1
                opened = True
    return b"".join(out)


def layouts(text: bytes) -> Iterator[bytes]:
    """The same tokens, as they are laid out usually: compact, as Python's json does it, and as they stand."""
    tokens = TOKEN.findall(text)
    yield b"".join(tokens)
    yield b"".join([token + b" " if token in (b",", b":") else token for token in tokens])
    yield text


def members(text: bytes) -> Iterator[tuple[str, int, int]]:
    """Key, and start and end of the value, of each member of the outermost object."""
    depth = 0
    key: str | None = None
    start = end = 0
    last = b""
    for match in TOKEN.finditer(text):
        token = match.group()
        if depth == 1:
            if key is None and token[:1] == b'"':
                key = json.loads(token)
            elif token == b":" and last[:1] == b'"' and not start:
                start = match.end()
            elif token in (b",", b"}"):
                if key is not None:
                    yield key, start, end
                key, start = None, 0
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        end = match.end()
        last = token


def span(text: bytes, key: str) -> tuple[int, int] | None:
    """Start and end of the value of `key`, without white space; of the last one, if there are two."""
    found = None
    for name, start, end in members(text):
        if name == key:
            found = (start + len(text[start:end]) - len(text[start:end].lstrip()), end)
    return found
