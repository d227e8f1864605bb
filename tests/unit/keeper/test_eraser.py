"""When a deletion is erased: not before index, tree and mirror are past it, and no file holds old bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.preallocation import SPARE_NAME
from perstack_stored.keeper.channel import ALL_SEGMENTS, JournalState, KeeperEnd
from perstack_stored.keeper.eraser import Eraser, Outcome
from perstack_stored.model.kinds import Kind
from perstack_stored.tree import blocked
from perstack_stored.tree.blocked import BlockedRecord
from perstack_stored.tree.cursor import Cursor, save_cursor
from tests.helpers.datadir import Base, event
from tests.unit.keeper.test_pack import PACE


class _Line:
    def __init__(self, state: JournalState) -> None:
        self.state = state


class Rounds:
    """The keeper's rounds on a base in which a job was deleted, after two segments with events of it."""

    def __init__(self, path: Path) -> None:
        self.base = Base(path, segment_bytes=1 << 13)
        for n in range(30):
            self.base.store((Kind.EVENT, event(id=f"e{n}", timestamp=n, pad="sentinel" * 40)))
        self.deleted = self.base.store((Kind.DELETION, {"jobId": "job-1"}))
        self.eraser = Eraser(DataDir(str(path), FileSystem(), self.base.folders), PACE, packs=True)
        self.tree_at(self.deleted)

    def tree_at(self, position: int) -> None:
        """Let the tree be on disk up to a position."""
        cursor = Cursor(position, clean=True)
        save_cursor(FileSystem(), self.base.stored_dir, self.base.journal.store, cursor)

    def run(self, *, projected: int | None = None, free_below: int = ALL_SEGMENTS) -> Outcome:
        """A round."""
        chain = Chain(FileSystem(), self.base.folder.fd)
        position = self.deleted if projected is None else projected
        state = JournalState(self.base.journal.mark.segment, position, True, free_below)
        try:
            return self.eraser.run(chain, cast("KeeperEnd", _Line(state)))
        finally:
            chain.close()

    def sentinels(self) -> int:
        """How often a word of the job stands in the complete segments."""
        return sum(path.read_bytes().count(b"sentinel") for path in self.base.folder.segments()[:-1])


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    rounds = Rounds(tmp_path)
    yield rounds
    base = rounds.base
    base.database.close()
    base.index.close()
    base.reader.close()
    base.journal.close()


def test_what_stands_in_the_open_segment_waits_until_that_is_complete(rounds: Rounds) -> None:
    """Complete segments are erased in at once."""
    first = rounds.run()
    assert (first.erased_to, first.wants_segment, first.fault) == (0, True, "")
    assert first.records > 10
    assert not rounds.sentinels()
    assert rounds.run().records == 0
    assert rounds.base.journal.begin_segment()
    assert rounds.sentinels()
    second = rounds.run()
    assert (second.erased_to, second.wants_segment) == (rounds.deleted, False)
    assert first.records + second.records == 30
    assert not rounds.sentinels()


@pytest.mark.parametrize("behind", ["projections", "tree on disk"])
def test_nothing_is_erased_before_index_and_tree_are_past_the_deletion(rounds: Rounds, behind: str) -> None:
    """They would read it again, and a power cut would bring back the files."""
    before = rounds.base.folder.snapshot()
    if behind == "projections":
        assert rounds.run(projected=rounds.deleted - 1) == Outcome()
    else:
        rounds.tree_at(rounds.deleted - 1)
        assert rounds.run() == Outcome()
    assert rounds.base.folder.snapshot() == before


def test_a_segment_that_the_mirror_lacks_is_left_as_it_is(rounds: Rounds) -> None:
    """It ships the bytes as they were, in pieces that must fit together."""
    assert rounds.base.journal.begin_segment()
    before = rounds.base.folder.snapshot()
    assert rounds.run(free_below=1).erased_to == 0
    assert rounds.base.folder.snapshot() == before
    assert rounds.run(free_below=2).records > 0
    assert rounds.sentinels()
    assert rounds.run().erased_to == rounds.deleted


def test_a_deletion_that_the_tree_passed_over_is_never_called_erased(rounds: Rounds) -> None:
    """Its files are still there."""
    base = rounds.base
    assert base.journal.begin_segment()
    listed = (BlockedRecord(rounds.deleted, "deletion"),)
    blocked.save(FileSystem(), base.stored_dir, base.journal.store, listed)
    outcome = rounds.run()
    assert (outcome.erased_to, outcome.passed_over) == (0, rounds.deleted)
    assert not rounds.sentinels()
    blocked.save(FileSystem(), base.stored_dir, base.journal.store, ())
    outcome = rounds.run()
    assert (outcome.erased_to, outcome.passed_over) == (rounds.deleted, 0)


def test_nothing_is_called_erased_while_a_file_with_old_bytes_waits(rounds: Rounds) -> None:
    """The server removes it; then it is said."""
    assert rounds.base.journal.begin_segment()
    spare = rounds.base.folder.path / SPARE_NAME
    spare.write_bytes(b"old bytes")
    assert rounds.run().erased_to == 0
    spare.unlink()
    assert rounds.run().erased_to == rounds.deleted


def test_a_damaged_segment_is_a_fault_and_the_others_are_erased_in(rounds: Rounds) -> None:
    base = rounds.base
    assert base.journal.begin_segment()
    path = base.folder.segments()[0]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    outcome = rounds.run()
    assert path.name in outcome.fault
    assert outcome.erased_to == 0
    assert outcome.records > 0
