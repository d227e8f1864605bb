"""Steps of a start that the daemon and the offline tools share: sessions, journal, the import of a tree."""

import os

import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import STORED_NAME, Folders
from perstack_stored.index import writer as index
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.progress import Working, to_nobody
from perstack_stored.tree.writer import Cursor, load_cursor, save_cursor
from perstack_stored.tree_import.first_start import import_tree, import_wanted

_log = structlog.get_logger()


def known_position(files: FileSystem, base: str, folders: Folders, store: bytes) -> int:
    """The highest position that index or tree know: they only follow what is on disk."""
    indexed = index.position_of(os.path.join(base, STORED_NAME, index.FILE_NAME), store)
    return max(load_cursor(files, folders.stored, store).position, indexed or 0)


def open_journal(
    files: FileSystem,
    base: str,
    folders: Folders,
    sessions: Sessions,
    settings: Settings,
    working: Working = to_nobody,
) -> JournalWriter:
    """Open the journal, and tell what recovery found."""
    journal = JournalWriter(
        files,
        folders.journal,
        sessions,
        segment_bytes=settings.segment_bytes,
        first_segment_bytes=settings.first_segment_bytes,
        known_position=lambda store: known_position(files, base, folders, store),
        working=working,
    )
    found = journal.recovered
    if found.kept or found.torn_bytes:
        _log.warning(
            "journal_recovered",
            segment=found.number,
            kept_records=sum(len(entry.records) for entry in found.kept),
            torn_bytes=found.torn_bytes,
            torn_at=found.end if found.torn_bytes else None,
            position=found.position,
        )
    return journal


def take_up_tree(
    files: FileSystem, folders: Folders, journal: JournalWriter, working: Working = to_nobody
) -> None:
    """Import a tree that was there before us; after this the cursor says what there is to wait for."""
    imported = import_wanted(files, folders, journal)
    if imported:
        import_tree(files, folders, journal, working)
    if imported or not journal.mark.position:
        # The tree is as the journal has it. Without a cursor, the next start would go through all of it.
        save_cursor(files, folders.stored, journal.store, Cursor(0, clean=True))


def make_sessions(settings: Settings) -> Sessions:
    """The sessions, empty."""
    return Sessions(
        sessions_max=settings.sessions_max,
        session_seconds=settings.session_seconds,
        remembered_records_max=max(settings.window_records, settings.batch_items_max),
    )
