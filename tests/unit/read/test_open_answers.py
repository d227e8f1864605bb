"""Large answers that are pulled in parts: how they are cut, and who gives way where there is no room."""

from collections.abc import Iterator

import pytest

from perstack_storage._core.errors import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.portions import ByteShares
from perstack_stored.read import open_answers as open_reads
from perstack_stored.read.open_answers import OpenRead, OpenReads


def a_read(client: str, *pieces: bytes, peer: int = 1, memory: int = 0) -> OpenRead:
    return OpenRead(peer, client, iter(pieces or (b"x" * 30,)), lambda: memory, masked=False)


def parts_of(read: OpenRead, size: int) -> Iterator[bytes]:
    while not read.is_complete:
        buffers: list[bytes | memoryview] = []
        list(read.make_part(size, buffers))
        yield b"".join(buffers)


def kept(reads: OpenReads, client: str, peer: int = 1, memory: int = 0) -> OpenRead:
    read = a_read(client, peer=peer, memory=memory)
    list(read.make_part(10, []))
    reads.keep(read, "r")
    return read


@pytest.mark.parametrize(
    "pieces", [(b"a" * 100,), (b"a" * 7, b"", b"b" * 33, b"c"), (b"a" * 10,) * 4, (b"",), (b"a" * 10, b"")]
)
def test_the_parts_joined_are_the_pieces_joined(pieces: tuple[bytes, ...]) -> None:
    """Each part but the last has the size that was asked for, whatever the pieces are."""
    parts = list(parts_of(a_read("me", *pieces), 10))
    assert b"".join(parts) == b"".join(pieces)
    assert all(len(part) == 10 for part in parts[:-1])
    assert len(parts) == max(1, -(-len(b"".join(pieces)) // 10))


def test_what_is_left_of_a_piece_is_not_copied() -> None:
    """Each part of a large piece is a view of it, so that the cost of a part is that of its own bytes."""
    piece = b"x" * 1000
    read = a_read("me", piece)
    for _ in range(10):
        buffers: list[bytes | memoryview] = []
        list(read.make_part(100, buffers))
        views = [buffer for buffer in buffers if len(buffer)]
        assert sum(map(len, views)) == 100
        assert all(isinstance(view, memoryview) and view.obj is piece for view in views)


def test_the_client_that_holds_most_gives_way_first() -> None:
    """It loses what it has not pulled for longest; a client with fewer loses nothing."""
    reads = OpenReads(8, 1 << 20, 30)
    hog = [kept(reads, "hog") for _ in range(7)]
    mine = [kept(reads, "me", peer=2) for _ in range(4)]
    assert [read.is_gone for read in hog] == [True, True, True, False, False, False, False]
    assert not any(read.is_gone for read in mine)
    with pytest.raises(Refusal) as caught:
        kept(reads, "me", peer=2)
    assert caught.value.code is ErrorCode.BUSY
    with pytest.raises(Refusal) as caught:
        reads.take(hog[0].name, 1, 1, masked=False)
    assert caught.value.code is ErrorCode.READ_GONE
    assert reads.take(hog[3].name, 1, 1, masked=False) is hog[3]


def test_one_that_is_not_pulled_gives_way_to_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many clients as there is room for, each with one read that it leaves, keep nobody else out."""
    reads = OpenReads(4, 1 << 20, 30)
    left = [kept(reads, f"client {i}", peer=i) for i in range(4)]
    with pytest.raises(Refusal):
        kept(reads, "me", peer=9)
    monkeypatch.setattr(open_reads, "_IDLE_SECONDS", 0)
    assert not kept(reads, "me", peer=9).is_gone
    assert [read.is_gone for read in left] == [True, False, False, False]


def test_memory_is_shared_as_well() -> None:
    """The one whose answers take most of it gives way, and one alone may take what it needs."""
    reads = OpenReads(100, 1000, 30)
    kept(reads, "hog", memory=5000)
    assert reads.bytes > 5000
    small = kept(reads, "me", peer=2, memory=100)
    assert reads.bytes == small.counted == 100 + 30
    growing = a_read("hog", b"y" * 100, memory=open_reads._LARGE_BYTES)
    with pytest.raises(Refusal):
        reads.note(growing, "r")  # while its first part is made


def test_what_a_connection_left_is_freed_with_it() -> None:
    """Its reads go at once, those of others stay."""
    reads = OpenReads(8, 1 << 20, 30)
    gone, other = kept(reads, "a", peer=1), kept(reads, "a", peer=2)
    reads.left(1)
    reads.left(3)
    assert (gone.is_gone, other.is_gone, len(reads)) == (True, False, 1)
    reads.drop(other)
    reads.drop(other)
    assert (len(reads), reads.bytes) == (0, 0)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_pool_that_empties_keeps_room_for_one_more(others: int) -> None:
    """However many clients ask for as much as they can get, each gets as much, and the next one something."""
    portions = ByteShares()
    names = [f"client {i}" for i in range(others + 1)]

    for _ in range(120):
        for name in names:
            if portions.has_room(name, 1, 120):
                portions.add(name, 1)
    assert {portions.of(name) for name in names} == {120 // (len(names) + 1)}
    assert portions.has_room("next", 1, 120)
    for name in names:
        portions.add(name, -portions.of(name))
    assert (portions.total, portions.greatest()) == (0, "")
