"""What the stores take, for type checkers alone: a value of the shape, or an object that was read from JSON.

A dict whose values are Any is taken for every shape: nobody knows what is in it. Of a literal, and of a dict
that was made of one, a type checker knows the types of the values, and refuses those that fit no shape.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class _Anything:
    """No value is of this class: of all types only Any fits it."""

    def __init__(self) -> None:
        raise NotImplementedError


class JsonObject(Protocol):
    """A dict or another mapping from str to Any, such as `json.loads` returns."""

    def __getitem__(self, key: str, /) -> _Anything: ...

    def keys(self) -> Iterable[str]: ...


# A variable: else a literal would be taken for a JsonObject, and checked against its impossible values.
J = TypeVar("J", bound=JsonObject)
