"""Steps of a start that the daemon and the offline tools share: sessions, journal, import of a tree."""

import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import ConfigError
from perstack_stored.index.connection import position_of
from perstack_stored.journal.deletion_guards import DeletionGuards
from perstack_stored.journal.options import History, JournalOptions
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.progress import Working, no_progress
from perstack_stored.tree.cursor import Cursor, load_cursor, save_cursor
from perstack_stored.tree_import.first_start import import_tree, import_wanted

_log = structlog.get_logger()


def known_position(datadir: DataDir, store: bytes) -> int:
    """The highest position that index or tree know: they only hold what is on disk."""
    indexed = position_of(datadir.index_path, store)
    return max(load_cursor(datadir.files, datadir.folders.stored, store).position, indexed or 0)


def open_journal(
    datadir: DataDir,
    sessions: Sessions,
    settings: Settings,
    working: Working = no_progress,
    history: History | None = None,
) -> JournalWriter:
    """Open the journal, and log what recovery found; see `JournalWriter` for errors.

    Raises:
        ConfigError: the journal is part of a replicated log, and is opened by itself, or the other way.
    """
    journal = JournalWriter(
        datadir.files,
        datadir.folders.journal,
        sessions,
        JournalOptions(settings.segment_bytes, settings.first_segment_bytes, history=history),
        known_position=lambda store: known_position(datadir, store),
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


def import_at_first_start(datadir: DataDir, journal: JournalWriter, working: Working = no_progress) -> None:
    """Import a tree older than the journal; after it, the cursor says what the start must wait for."""
    imported = import_wanted(datadir, journal)
    if imported and journal.is_shared:
        raise ConfigError("the base has a tree, and a replicated journal begins empty: use an empty base")
    if imported:
        import_tree(datadir, journal, working)
    if imported or not journal.mark.position:
        # The tree matches the journal. Without a cursor, the next start would check all of it.
        save_cursor(datadir.files, datadir.folders.stored, journal.store, Cursor(0, clean=True))


def make_sessions(settings: Settings) -> Sessions:
    """Empty sessions with the bounds of the settings."""
    return Sessions(
        sessions_max=settings.sessions_max,
        session_seconds=settings.session_seconds,
        remembered_records_max=max(settings.window_records, settings.batch_items_max),
        guards=DeletionGuards(guard_seconds=settings.delete_guard_seconds),
    )
