"""Secrets in run settings, hidden for people who look at what is stored. No I/O.

Works on the tokens of the text, so that everything that is no secret stays byte for byte as it was stored.
"""

import json
import re

from perstack_storage._masking import SECRET_OBJECTS, SECRETS, folded

from .jsontext import TOKEN

MASK = b'"***"'
# https://user:password@host
_USER_IN_URL = re.compile(rb"(:(?:\\?/){2})[^/?#\"\\]*@")


def mask(setting: bytes) -> bytes:
    """A run setting, checked when it was stored, with `"***"` in the place of each secret."""
    return _Masker(setting).run()


class _Masker:
    """Goes through the tokens once; `_all_secret` says of each open object whether it hides all values."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._out: list[bytes] = []
        self._copied = 0  # what lies before this place in the text is in `_out`, or hidden
        self._is_object: list[bool] = []
        self._all_secret: list[bool] = []
        self._key: str | None = None
        self._expects_key = False
        self._hidden_depth: int | None = None  # a container that opened at this depth is being left out

    def run(self) -> bytes:
        for match in TOKEN.finditer(self._text):
            token = match.group()
            if token in (b"{", b"["):
                self._open(token, match.start())
            elif token in (b"}", b"]"):
                self._close(match.end())
            elif token == b",":
                self._expects_key = self._is_object[-1]
            elif token == b":":
                self._expects_key = False
            elif self._expects_key:
                self._key = folded(json.loads(token))
            else:
                self._scalar(token, match.start(), match.end())
        self._out.append(self._text[self._copied :])
        return b"".join(self._out)

    @property
    def _is_secret(self) -> bool:
        """Whether the value that begins here is one."""
        in_object = bool(self._is_object) and self._is_object[-1]
        return in_object and (self._all_secret[-1] or self._key in SECRETS)

    def _open(self, token: bytes, start: int) -> None:
        if self._hidden_depth is None and self._is_secret:
            self._hide_from(start)
            self._hidden_depth = len(self._is_object)
        is_object = token == b"{"
        in_object = bool(self._is_object) and self._is_object[-1]
        self._all_secret.append(is_object and in_object and self._key in SECRET_OBJECTS)
        self._is_object.append(is_object)
        self._expects_key = is_object

    def _close(self, end: int) -> None:
        self._is_object.pop()
        self._all_secret.pop()
        self._expects_key = False
        if self._hidden_depth == len(self._is_object):
            self._hidden_depth = None
            self._copied = end

    def _scalar(self, token: bytes, start: int, end: int) -> None:
        if self._hidden_depth is not None:
            return
        if self._is_secret:
            self._hide_from(start)
            self._copied = end
        elif token[:1] == b'"' and b"@" in token:
            self._out += (self._text[self._copied : start], _USER_IN_URL.sub(rb"\1***@", token))
            self._copied = end

    def _hide_from(self, start: int) -> None:
        self._out += (self._text[self._copied : start], MASK)
