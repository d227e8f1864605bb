"""Parameters of requests: declared once, checked at each request, described in the OpenAPI document."""

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from perstack_storage._inspect import limits
from perstack_storage._inspect.errors import GatewayError

POSITION_MAX = (1 << 53) - 1
_ID_BYTES_MAX = 200
_CURSOR_CHARS_MAX = 4096


class Parameter(NamedTuple):
    """A parameter of the query or the path.

    Attributes:
        kind: id, text, integer, number, cursor, choice or names.
        low, high: bounds of a number, or of the count of names.
    """

    name: str
    kind: str
    text: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    required: bool = False

    def schema(self) -> dict[str, Any]:
        """Its schema in the OpenAPI document."""
        if self.kind == "integer":
            return {"type": "integer", "minimum": self.low, "maximum": self.high}
        if self.kind == "number":
            return {"type": "number", "minimum": self.low, "maximum": self.high}
        if self.kind == "choice":
            return {"type": "string", "enum": list(self.choices)}
        if self.kind == "id":
            return {"type": "string", "minLength": 1, "maxLength": _ID_BYTES_MAX}
        if self.kind == "cursor":
            return {"type": "string", "maxLength": _CURSOR_CHARS_MAX}
        if self.kind == "names":
            return {"type": "string", "description": "Names with commas between them; an empty text is none."}
        return {"type": "string", "maxLength": limits.NAME_CHARS_MAX}

    def value(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            GatewayError: BAD_REQUEST with the name of the parameter.
        """
        if self.kind in {"integer", "number"}:
            return self._number(text)
        if self.kind == "choice" and text not in self.choices:
            raise self.wrong(f"must be one of {', '.join(self.choices)}")
        if self.kind == "id":
            return self._id(text)
        if self.kind == "cursor":
            return self._cursor(text)
        if self.kind == "names":
            return self._names(text)
        if len(text) > limits.NAME_CHARS_MAX:
            raise self.wrong(f"has more than {limits.NAME_CHARS_MAX} characters")
        return text

    def wrong(self, what: str) -> GatewayError:
        """The error that says what is wrong with it."""
        return GatewayError("BAD_REQUEST", f"{self.name} {what}", self.name)

    def _number(self, text: str) -> int | float:
        try:
            number = int(text) if self.kind == "integer" else float(text)
        except ValueError:
            raise self.wrong(f"must be {'an integer' if self.kind == 'integer' else 'a number'}") from None
        is_finite = isinstance(number, int) or math.isfinite(number)  # an int may be beyond any float
        if not text.isascii() or "_" in text or text != text.strip() or not is_finite:
            raise self.wrong("must be a number in ASCII digits")
        if not self.low <= number <= self.high:
            raise self.wrong(f"must be between {self.low} and {self.high}")
        return number

    def _id(self, text: str) -> str:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise self.wrong("must be UTF-8") from None
        if not 1 <= size <= _ID_BYTES_MAX:
            raise self.wrong(f"must have 1 to {_ID_BYTES_MAX} bytes")
        return text

    def _cursor(self, text: str) -> Any:
        if len(text) > _CURSOR_CHARS_MAX:
            raise self.wrong("is too long")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.wrong("must be the `next` of a page") from None

    def _names(self, text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if len(names) > self.high:
            raise self.wrong(f"has more than {self.high} names")
        if any(len(name) > limits.NAME_CHARS_MAX for name in names):
            raise self.wrong(f"has a name of more than {limits.NAME_CHARS_MAX} characters")
        return names


def checked(parameters: Iterable[Parameter], given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values of the parameters given, by name.

    Raises:
        GatewayError: BAD_REQUEST: one is wrong, unknown, given twice, or missing.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    for name, text in given:
        if name not in known:
            raise GatewayError("BAD_REQUEST", "there is no such parameter", name[: limits.NAME_CHARS_MAX])
        if name in values:
            raise known[name].wrong("is given twice")
        values[name] = known[name].value(text)
    for parameter in known.values():
        if parameter.required and parameter.name not in values:
            raise parameter.wrong("is missing")
    return values
