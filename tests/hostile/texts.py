"""Text that a terminal, a shell or a reader of a log must not meet as it is."""

import re

HOSTILE = {
    "escape": "\x1b]0;owned\x07\x1b[2J",
    "line break": "a\nfake     row",
    "return": "a\rfake",
    "backspace": "a\x08b",
    "delete": "a\x7fb",
    "c1": "a\x9b31mb\x85c",
    "line separator": "a\u2028b\u2029c",
    "direction": "a\u202eb\u202cc",
    "isolate": "a\u2066b\u2069c",
    "mark of direction": "a\u200eb\u061cc",
    "zero width": "a\u200bb\u200dc\u2060d\ufeffe",
    "soft hyphen": "a\u00adb",
    "tag": "a\U000e0041b",
    "lone surrogate": "a\ud83db\udc9bc",
    "shell": 'a\'; touch owned; `touch owned` $(touch owned) "b" \\ #',
}
_ACTED_ON = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def acted_on(text: str) -> list[str]:
    """What in printed text a terminal would act on, or not show; line breaks are looked at elsewhere."""
    return [hex(ord(char)) for char in _ACTED_ON.findall(text)]
