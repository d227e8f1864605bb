"""In which form records by position are sent: with secrets masked, and without some fields. No I/O."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from perstack_stored.model.edits import joined
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask, mask_pieces
from perstack_stored.model.omission import Fields, fields_of, pieces_without, without

_WITH_SECRETS = frozenset({int(Kind.RUN_SETTING), int(Kind.DELETION)})  # a redaction holds a setting


class Form(NamedTuple):
    """What is done to the values of records.

    Attributes:
        masked: secrets of run settings are hidden.
        omit: dotted names of fields that are left out.
    """

    masked: bool = False
    omit: tuple[str, ...] = ()

    def value(self, kind: int, payload: memoryview) -> bytes | memoryview:
        """A value in this form."""
        value: bytes | memoryview = payload
        if self.masked and kind in _WITH_SECRETS:
            value = mask(bytes(payload))
        return without(bytes(value), _fields(self.omit)) if self.omit else value

    def pieces(
        self, kind: int, pieces: Iterator[bytes | memoryview], length: int
    ) -> Iterator[bytes | memoryview]:
        """The pieces of a large value of `length` bytes in this form; an empty piece is a step."""
        if self.masked and kind in _WITH_SECRETS:
            pieces = mask_pieces(joined(pieces, length))
        return pieces_without(pieces, _fields(self.omit)) if self.omit else pieces


def form_of(arguments: Mapping[str, Any]) -> Form:
    """The form that checked arguments of a read describe."""
    return Form("masked" in arguments, tuple(arguments.get("omit", ())))


@lru_cache(maxsize=64)
def _fields(omit: tuple[str, ...]) -> Fields:
    return fields_of(omit)
