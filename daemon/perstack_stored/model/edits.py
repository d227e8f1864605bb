"""Changes to a large value that is read in pieces: what lies between two places is replaced. No I/O."""

from collections.abc import Iterable, Iterator

Edit = tuple[int, int, bytes]  # start, end, and what stands there instead


def edited(pieces: Iterable[bytes | memoryview], edits: list[Edit]) -> Iterator[bytes | memoryview]:
    """The pieces of a text with all edits made, which are in order and do not overlap."""
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
    """The text of some pieces, `size` bytes at most; copied bit by bit, so that nobody waits for it."""
    text = bytearray(size)
    end = 0
    for piece in pieces:
        text[end : end + len(piece)] = piece
        end += len(piece)
    del text[end:]
    return text
