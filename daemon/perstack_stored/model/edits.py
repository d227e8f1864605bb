"""Edits of a large value that is read in pieces: replaces the text between two offsets. No I/O."""

from collections.abc import Iterable, Iterator

Edit = tuple[int, int, bytes]  # start, end, replacement


def edited(pieces: Iterable[bytes | memoryview], edits: list[Edit]) -> Iterator[bytes | memoryview]:
    """Yield the pieces of a text with all edits made; edits are in order and do not overlap."""
    left = list(reversed(edits))
    end = 0
    for piece in pieces:
        view, first, place = memoryview(piece), end, end
        end += len(view)
        while left and left[-1][0] < end:
            start, stop, instead = left.pop()
            yield view[place - first : start - first]
            yield instead
            if stop > end:
                left.append((end, stop, b""))
            place = min(stop, end)
        yield view[place - first :]


def joined(pieces: Iterable[bytes | memoryview], size: int) -> bytearray:
    """Join pieces into a text of at most `size` bytes, in small steps, so that no thread waits long."""
    text = bytearray(size)
    end = 0
    for piece in pieces:
        text[end : end + len(piece)] = piece
        end += len(piece)
    del text[end:]
    return text
