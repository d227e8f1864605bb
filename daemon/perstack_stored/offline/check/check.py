"""`check`: compares journal, index and tree of a base that is not served. It changes nothing in the base."""

import tempfile

from perstack_stored.datadir.layout import INDEX_NAME, DataDir
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.segment_names import SUFFIX
from perstack_stored.offline.findings import Report
from perstack_stored.tree.cursor import CURSOR_NAME
from perstack_stored.tree_import import first_start

from .index import check_index
from .journal import check_journal
from .tree import check_tree


def check(base: DataDir, report: Report) -> None:
    """Report every difference to the journal.

    A fresh index is built in a temporary folder (TMPDIR), which takes the room of about two indexes.

    Raises:
        OSError: there is no room for it.
    """
    files, folders = base.files, base.folders
    if first_start.MARKER_NAME in files.list_dir(folders.stored):
        report.add("import_unfinished")
    end = check_journal(files, folders.journal, report)
    if end is None:
        if any(name.endswith(SUFFIX) for name in files.list_dir(folders.journal)):
            report.add("index_not_compared")
            report.add("tree_not_compared")
        else:
            _without_journal(base, report)
        return
    reader = JournalReader(files, folders.journal)
    with tempfile.TemporaryDirectory(prefix="perstack-stored-check-") as scratch:
        fresh_path = check_index(base, end, reader, scratch, report)
        check_tree(base, end, reader, fresh_path, scratch, report)
    reader.close()


def _without_journal(base: DataDir, report: Report) -> None:
    left = [name for name in (INDEX_NAME, CURSOR_NAME) if name in base.files.list_dir(base.folders.stored)]
    if left:
        report.add("journal_missing", left=", ".join(left))
    else:
        report.add("journal_empty")
