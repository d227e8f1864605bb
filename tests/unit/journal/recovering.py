"""Journals that a stop left, changed by hand, and what a start makes of them."""

import contextlib
import shutil
from pathlib import Path

from perstack_stored.journal.entry_format import EntryType
from perstack_stored.journal.segment_walk import BadEntryError, Entry, walk
from perstack_stored.journal.writer import Append
from tests.helpers.datadir import JournalFolder, append

PROVEN = [b"first", b"second"]


def copy(folder: JournalFolder, name: str) -> JournalFolder:
    """The same files in another folder, as after a crash."""
    target = folder.path.parent / name
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(folder.path, target)
    return JournalFolder(target)


def entries(folder: JournalFolder, number: int = 1) -> list[Entry]:
    """All valid entries from the head of a segment on."""
    reader = folder.reader()
    found: list[Entry] = []
    with contextlib.suppress(BadEntryError):
        found.extend(walk(reader.chain.file(number), 64, reader.chain.open(number).size()))
    reader.close()
    return found


def of_records(folder: JournalFolder) -> list[Entry]:
    """The same, without sessions and marks."""
    return [entry for entry in entries(folder) if entry.header.type == EntryType.RECORDS]


def patch(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def last_batch(folder: JournalFolder, items: list[Append], *, segment_bytes: int = 4096) -> list[Entry]:
    """A journal of two proven entries and a last batch of `items`; the entries of that batch."""
    journal = folder.open(first_segment_bytes=segment_bytes)
    for payload in PROVEN:
        journal.append([append(payload)])
    journal.append(items)
    return entries(folder)[-len(items) :]


def check_works_on(folder: JournalFolder, expected: list[bytes]) -> None:
    """New records stand after what was recovered, through all stops, and nothing cut comes back."""
    journal = folder.open(first_segment_bytes=4096)
    assert folder.payloads(journal.mark) == expected
    (first,) = journal.append([append(b"new")])
    assert first == len(expected) + 1
    folder.open(first_segment_bytes=4096).close()
    journal = folder.open(first_segment_bytes=4096)
    assert journal.append([append(b"newer")]) == [first + 1]
    assert folder.payloads(journal.mark) == [*expected, b"new", b"newer"]
    assert [s.position for s in folder.read(journal.mark)] == list(range(1, first + 2))
