"""Names of segment files."""

import re
from collections.abc import Iterable

SUFFIX = ".segment"
_NAME = re.compile(r"[0-9]{10}\.segment")


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:010d}{SUFFIX}"


def segment_number(name: str) -> int:
    """The number in the file name of a segment."""
    return int(name.removesuffix(SUFFIX))


def is_segment_name(name: str) -> bool:
    """Whether a name is exactly that of a segment."""
    return _NAME.fullmatch(name) is not None and segment_number(name) > 0


def segment_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of the segments among some names, in order; other names are ignored."""
    return sorted(segment_number(name) for name in names if is_segment_name(name))
