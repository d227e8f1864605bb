"""The one escaper of text that is shown: on a terminal, in a line of a log, in a hint for a shell.

What is stored, and what files are called, is chosen by others. A character that a terminal acts on, that
begins another line, or that is not seen there could pass for something that this program says.
"""

import re
import shlex

UNSAFE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 with ESC and line breaks, DEL, C1
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0e\uffa0"  # not seen
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"  # zero width, line breaks, direction
    "\ud800-\udfff"  # halves of characters: bytes of a file name that are no UTF-8, too
    "\U000e0000-\U000e0fff"  # tags
    "]"
)


def escaped(text: str) -> str:
    """Returns a text in one line without anything that a terminal acts on, or hides.

    The escapes are those of JSON, so JSON text stays the same value.
    """
    return text if text.isascii() and text.isprintable() else UNSAFE.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Returns the same of a text whose line breaks are meant."""
    return "\n".join(map(escaped, text.split("\n")))


def shell_word(text: str) -> str:
    """Returns a word for a command that somebody may paste into a shell.

    What could not be shown stays quoted in the form $'…' of bash, zsh and POSIX 2024.
    """
    if UNSAFE.search(text) is None:
        return shlex.quote(text)
    inner = "".join(_in_dollar_quotes(char) for char in text)
    return f"$'{inner}'"


def _escape(found: re.Match[str]) -> str:
    units = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _in_dollar_quotes(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if UNSAFE.match(char) is None:
        return char
    is_byte = "\udc80" <= char <= "\udcff"  # of a file name that is no UTF-8
    return "".join(
        f"\\{byte:03o}" for byte in char.encode(errors="surrogateescape" if is_byte else "surrogatepass")
    )
