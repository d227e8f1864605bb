"""Findings of `check`, `audit` and `import`, by name. No I/O: the caller prints them."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

CHECK_FINDINGS = {
    "journal_damage": "bytes of the journal have changed; the daemon does not go past them",
    "journal_not_erased": "a record stands there that the index calls erased",
    "journal_missing": "the journal is gone, but its index or tree is there",
    "index_unusable": "the index can't be read, or is of another journal",
    "index_damage": "SQLite finds the index damaged",
    "index_ahead": "the index knows records that the journal lacks: the journal lost its end",
    "index_missing_record": "the index lacks a row",
    "index_extra_record": "the index has a row that the journal does not give",
    "index_wrong": "a row of the index is not what the journal gives",
    "tree_cursor_damage": "the tree's cursor can't be read; the next start writes the whole tree again",
    "tree_left_out_damage": "the record of what the tree leaves out can't be read; the next start writes the"
    " whole tree again",
    "tree_ahead": "the tree's cursor lies beyond the end of the journal: the journal lost its end",
    "tree_missing_file": "a file is not there",
    "tree_wrong_content": "a file does not hold what the journal says",
    "tree_wrong_type": "something that is no regular file or no folder stands in the place of one",
    "tree_symlink": "a symbolic link stands in the place of a file or folder; it was not followed",
    "tree_blocked": "the tree's process died at this record; `rebuild --retry-blocked` tries it again",
    "tree_unreadable": "a file or folder can't be read",
}
CHECK_NOTES = {
    "import_unfinished": "the journal does not hold the whole tree yet; the next start goes on importing",
    "journal_empty": "the journal has no segment yet",
    "journal_gap": "records that were lost; a repair put gaps in their place",
    "journal_torn_tail": "bytes of an unfinished write at the end, which the next start leaves out",
    "journal_unproven": "records at the end whose sync nothing proves; the next start writes them again",
    "index_missing": "there is no index; the next start builds it",
    "index_older": "the index is of an older version of the program; the next start builds it again",
    "index_behind": "the index ends before the journal; the next start goes on from there",
    "index_not_compared": "the index was not compared with a damaged journal",
    "tree_behind": "files beyond the tree's cursor are missing or old; the next start writes them",
    "tree_foreign_file": "a file that is not the tree's; left alone",
    "tree_not_compared": "the tree was not compared with a damaged journal",
}


class Finding(NamedTuple):
    """One thing found. A note is nothing to worry about."""

    name: str
    facts: dict[str, object]
    is_note: bool


class Report:
    """Takes findings as they come and counts them by name."""

    def __init__(
        self,
        show: Callable[[Finding], None],
        findings: Mapping[str, str] = CHECK_FINDINGS,
        notes: Mapping[str, str] = CHECK_NOTES,
    ) -> None:
        """A report that nothing was added to.

        Args:
            show: takes each thing as it is found.
            findings: what can be wrong, and what that means.
            notes: the same for findings that need no action.
        """
        self._show = show
        self._findings = findings
        self._notes = notes
        self.counts: Counter[str] = Counter()
        self.compared: dict[str, int] = {}

    def add(self, name: str, /, **facts: object) -> None:
        """Report one thing, by a name of the findings or notes; facts that are None are left out."""
        is_note = name in self._notes
        assert is_note or name in self._findings, name
        self.counts[name] += 1
        self._show(Finding(name, {key: value for key, value in facts.items() if value is not None}, is_note))

    def meaning(self, name: str) -> str:
        """What a name means."""
        return self._findings.get(name) or self._notes[name]

    @property
    def findings(self) -> int:
        """Count of findings that are no notes."""
        return sum(count for name, count in self.counts.items() if name in self._findings)

    @property
    def notes(self) -> int:
        """Count of notes."""
        return sum(count for name, count in self.counts.items() if name in self._notes)
