"""Two mirrors of trees under one prefix: one stops, also where both continue one history."""

import shutil
from pathlib import Path

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import StoredError
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.mirror.shipper import MirrorConflictError
from perstack_stored.mirror.tree_fence import FenceBusyError, Tagged, TreeFence
from tests.helpers.datadir import JournalFolder, append

KEY = "p/.stored/tree"


class AwayError(StoredError):
    """The answer was lost."""


class Objects:
    """A bucket in memory with one object, whose tags count its versions."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.version = 0
        self.loses_answers = False
        self.before: list[bytes] = []  # what others write before the next writes

    def read_tagged(self, key: str, bytes_max: int) -> Tagged | None:
        assert key == KEY
        return None if self.data is None else Tagged(self.data, str(self.version))

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        assert key == KEY
        if self.before:
            self.put(self.before.pop())
        if tag != (None if self.data is None else str(self.version)):
            return None
        self.put(data)
        if self.loses_answers:
            raise AwayError
        return str(self.version)

    def put(self, data: bytes) -> None:
        """Write, whatever is there."""
        self.data, self.version = data, self.version + 1


class Base:
    """A journal, and the fence of its mirror."""

    def __init__(self, path: Path, bucket: Objects) -> None:
        self.path = path
        self.bucket = bucket
        self.folder = JournalFolder(path)
        self.journal = self.start()

    def start(self) -> JournalWriter:
        """A daemon starts, after a clean stop or a crash; so does its mirror, which has not looked yet."""
        self.journal = self.folder.open(segment_bytes=1 << 13, first_segment_bytes=1 << 12)
        self.fence = TreeFence(self.bucket, Chain(FileSystem(), self.folder.fd), "p/", "s3://b/p")
        return self.journal

    def look(self) -> None:
        """What the mirror does first."""
        self.fence.look(self.journal.mark)

    def ship(self, count: int = 3) -> None:
        """Store some records, and pass the fence with them."""
        for _ in range(count):
            self.journal.append([append(b"x" * 300)])
        self.fence.pass_(self.journal.mark.position, self.journal.mark)

    def copy(self, path: Path) -> "Base":
        """A copy of the files."""
        shutil.copytree(self.path, path)
        return Base(path, self.bucket)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    one = Base(tmp_path / "base", Objects())
    one.look()
    return one


def test_one_base_goes_on_through_crashes_and_clean_stops(base: Base) -> None:
    """Over segments; the object names its last record."""
    for number in range(12):
        base.ship(4)
        assert base.bucket.data is not None
        assert base.bucket.data.split()[1] == str(base.journal.mark.position).encode()
        if number % 2:
            base.journal.close()
        base.start()
        base.look()
    assert base.journal.mark.segment > 3


@pytest.mark.parametrize("first", [0, 1])
def test_of_a_base_and_its_copy_one_stops(base: Base, tmp_path: Path, first: int) -> None:
    """Whichever stores first goes on; the other one stops, and stays so after a restart."""
    base.ship()
    both = [base, base.copy(tmp_path / "copy")]
    both[0].start()
    for one in both:
        one.look()
    both[first].ship()
    other = both[1 - first]
    for _ in range(2):
        with pytest.raises(MirrorConflictError, match="another continuation of this history"):
            other.ship(5)
        other.start()
        with pytest.raises(MirrorConflictError, match="put back from an older copy"):
            other.look()
    both[first].ship()
    both[first].start()
    both[first].look()


def test_a_copy_of_a_base_that_is_served_stops(base: Base, tmp_path: Path) -> None:
    """The epoch in which it was copied goes on in the original only."""
    base.ship()
    copy = base.copy(tmp_path / "copy")
    copy.look()
    base.ship()
    with pytest.raises(MirrorConflictError):
        copy.ship(9)
    base.ship()


def test_a_base_that_was_put_back_stops(base: Base, tmp_path: Path) -> None:
    old = base.copy(tmp_path / "old")
    base.ship()
    with pytest.raises(MirrorConflictError, match=f"position {base.journal.mark.position}: a copy"):
        old.look()


@pytest.mark.parametrize(
    ("data", "whose"), [(b"f" * 32 + b" 3 1-ab\n", "the history ffff"), (b"\xffwhat", "somebody else")]
)
def test_what_others_hold_is_named(base: Base, data: bytes, whose: str) -> None:
    base.bucket.put(data)
    with pytest.raises(MirrorConflictError, match=f"holds the tree of {whose}"):
        base.look()
    with pytest.raises(MirrorConflictError, match="another prefix; or, if that base is gone, remove"):
        base.ship()
    assert base.bucket.data == data


def test_a_lost_answer_is_not_taken_for_another_mirror(base: Base) -> None:
    base.ship()
    base.bucket.loses_answers = True
    with pytest.raises(AwayError):
        base.ship()
    base.bucket.loses_answers = False
    base.ship()


def test_a_write_of_the_process_before_may_come_late(base: Base) -> None:
    """It was under way when that process was killed: it names a record of this history."""
    base.ship(5)
    assert base.bucket.data is not None
    late = base.bucket.data
    base.start()
    base.look()
    base.bucket.put(late)
    base.ship()
    base.bucket.before = [late, late]
    with pytest.raises(FenceBusyError):
        base.ship()
    base.ship()


def test_an_object_that_was_removed_is_made_again(base: Base) -> None:
    """As the error of another history says to do."""
    base.ship()
    base.bucket.data = None
    base.ship()
    assert base.bucket.data is not None


def test_an_object_that_names_the_history_alone_is_of_an_earlier_version(base: Base) -> None:
    base.bucket.put(f"{base.journal.store.hex()}\n".encode())
    base.look()
    base.ship()
