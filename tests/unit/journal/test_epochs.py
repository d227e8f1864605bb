"""Epochs: each start begins one, positions keep theirs, and two continuations of a copy never share one."""

import shutil

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import Refusal
from perstack_stored.journal.epochs import ANSWER_EPOCHS_MAX, BEFORE_ALL, EPOCHS_MAX, Epochs
from perstack_stored.journal.recovery import recover
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.read.arguments import check_history
from tests.helpers.datadir import JournalFolder, append, sessions


def names(journal: JournalWriter) -> list[str | None]:
    """The epochs of all positions."""
    return [journal.epochs.at(position) for position in range(1, journal.mark.position + 1)]


def copied(folder: JournalFolder, name: str) -> JournalFolder:
    """The same files in another folder."""
    return JournalFolder(shutil.copytree(folder.path, folder.path.parent / name))


@pytest.mark.parametrize("clean", [False, True])
def test_each_start_begins_an_epoch_and_positions_keep_theirs(folder: JournalFolder, clean: bool) -> None:
    """After stops and after kills; starts in which nothing was stored leave no epoch."""
    expected: list[str | None] = []
    for start in range(6):
        journal = folder.open()
        assert names(journal) == expected
        if start % 2 == 0:
            for _ in range(start + 1):
                journal.append([append(b"x")])
            expected = names(journal)
        if clean:
            journal.close()
    assert len(set(expected)) == 3
    assert expected == sorted(expected, key=lambda name: int(str(name).partition("-")[0]))


def test_two_continuations_of_a_copy_part_where_it_was_made(folder: JournalFolder) -> None:
    """Up to there they have the same epochs, after it no common one, whichever was stopped or killed."""
    journal = folder.open()
    journal.append([append(b"a"), append(b"b")])
    copies = [copied(folder, f"copy-{n}") for n in range(2)]
    journal.append([append(b"c")])
    original = names(journal)
    continued = []
    for copy in copies:
        there = copy.open()
        there.append([append(b"other"), append(b"more")])
        continued.append(names(there))
    assert continued[0][:2] == continued[1][:2] == original[:2]
    assert len({original[2], continued[0][2], continued[1][2]}) == 3
    again = folder.open()
    again.append([append(b"d")])
    assert names(again)[:3] == original


def test_what_a_recovery_keeps_stays_of_its_epoch(folder: JournalFolder) -> None:
    """Records that are written again at the head of a segment may have been read before."""
    journal = folder.open()
    journal.append([append(b"a")])
    journal.write([append(b"kept")])
    assert journal.mark.position == 1
    again = folder.open()
    again.append([append(b"new")])
    found = names(again)
    assert found[0] == found[1] == journal.epochs.at(1) != found[2]


def test_each_segment_lists_the_epochs_before_it(folder: JournalFolder) -> None:
    """So the last one is enough, however many there are."""
    expected: list[str | None] = []
    for _ in range(4):
        journal = folder.open(segment_bytes=4096, first_segment_bytes=4096)
        for _ in range(15):
            journal.append([append(b"x" * 500)])
        assert names(journal)[: len(expected)] == expected
        expected = names(journal)
    assert len(folder.segments()) > 6
    assert len(set(expected)) == 4


def test_records_older_than_epochs_have_one_of_their_own(folder: JournalFolder) -> None:
    """A subscriber that read them before a copy was put back learns it, too."""
    journal = folder.open()
    vars(journal.epochs).update(vars(Epochs()))  # the next segment tells of none, as one of an older daemon
    for _ in range(40):
        journal.append([append(b"x" * 500)])
    assert len(folder.segments()) > 1
    del journal
    journal = folder.open()
    journal.append([append(b"new")])
    assert {names(journal)[0], names(journal)[39]} == {BEFORE_ALL}
    assert names(journal)[40] not in {BEFORE_ALL, None}


def test_the_epochs_that_are_kept_have_a_bound() -> None:
    """An older position has none, and one that comes with it is refused: nothing tells that it is right."""
    epochs = Epochs()
    for position in range(EPOCHS_MAX + 10):
        epochs.begin(position)
    assert len(epochs.upto(2**60)) == EPOCHS_MAX
    assert epochs.at(10) is None
    assert epochs.at(11) == epochs.upto(11)[0].name
    named = epochs.between(0, EPOCHS_MAX + 10)["epochs"]
    newest = [[epoch.first, epoch.name] for epoch in epochs.upto(2**60)[-ANSWER_EPOCHS_MAX:]]
    assert named == [[1, None], *newest]
    check_history({"after": 11, "epoch": epochs.at(11)}, "s", 2000, epochs)
    check_history({"after": 10}, "s", 2000, epochs)
    check_history({"after": 0, "epoch": "anything"}, "s", 2000, epochs)
    for after, epoch in ((10, "10-00"), (11, epochs.at(12)), (11, ""), (12, BEFORE_ALL)):
        with pytest.raises(Refusal) as caught:
            check_history({"after": after, "epoch": epoch}, "s", 2000, epochs)
        assert (caught.value.code, caught.value.field) == ("POSITION_GONE", "epoch")


def test_an_answer_has_the_epoch_of_each_position() -> None:
    """One where there is one, else where each begins."""
    epochs = Epochs()
    for position in (0, 3, 3, 7):
        epochs.begin(position)
    one, three, four = (epochs.at(position) for position in (1, 4, 8))
    assert epochs.between(0, 3) == {"epoch": one}
    assert epochs.between(3, 3) == {"epoch": one}
    assert epochs.between(3, 7) == {"epoch": three}
    assert epochs.between(2, 8) == {"epoch": four, "epochs": [[3, one], [4, three], [8, four]]}
    assert epochs.between(0, 0) == {"epoch": None}


def test_an_epoch_is_on_disk_before_anything_is_stored_in_it(folder: JournalFolder) -> None:
    """It costs no write and no sync of its own, whether the stop before was clean or not."""
    folder.open().close()
    for clean in (True, False):
        journal = folder.open()
        found = recover(FileSystem(), folder.fd, sessions())
        assert found.epochs.newest == journal.epochs.newest
        journal.append([append(b"x")])
        if clean:
            journal.close()
            assert len(folder.segments()) == 1
