"""A daemon that serves a copy of a mirror: what is fetched is appended as it was, and no client stores.

Entries keep position, time, session and bytes. So reads answer as the original does, and a daemon that is
started without the setting goes on as a base of its own, sessions included.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.config.mirror_url import parse_url
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem, atomic_replace, read_whole
from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import ConfigError, Refusal, StorageFullError, StoredError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, Record
from perstack_stored.journal.recovery import replay_entry
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.mirror.follower import Follower
from perstack_stored.mirror.listing import history_of
from perstack_stored.mirror.pieces import is_store
from perstack_stored.mirror.source import MirrorSource
from perstack_stored.store.group_commit import GroupCommit

NAME = "copy-of.json"
_FILE_MODE = 0o600
_FILE_BYTES_MAX = 4096
_RETRY_SECONDS = 1.0
_COPY_BYTES = 4 << 20  # appended at a time: the loop serves reads between


class CopyFailedError(StoredError):
    """What was fetched does not follow what is there. The process must end."""


class NoCopying:
    """A daemon with a history of its own."""

    is_on = False

    def refuse_stores(self) -> None:
        """Do nothing."""

    def follow(self, _group_commit: GroupCommit) -> bool:
        """Do nothing."""
        return False

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the state of no copying."""
        return {"enabled": False, "position": None, "checkedSeconds": None, "fault": "", "faults": 0}


class Copying:
    """Appends fetched entries to the journal."""

    is_on = True

    def __init__(self, entries: Follower, journal: JournalWriter, sessions: Sessions) -> None:
        self._entries = entries
        self._journal = journal
        self._sessions = sessions
        self._held: list[Entry] = []  # taken, and not written: the disk was full
        self._fault = ""
        self._not_before = 0.0

    def refuse_stores(self) -> None:
        """Raise Refusal (FORBIDDEN): this daemon takes no stores."""
        raise Refusal(ErrorCode.FORBIDDEN, "this daemon serves a copy of a mirror, which can only be read")

    def follow(self, group_commit: GroupCommit) -> bool:
        """Append what was fetched; returns whether there was something. Called in each round of the loop.

        Raises:
            CopyFailedError: a position is not the next one.
            JournalFailedError: the process must end.
        """
        if time.monotonic() < self._not_before:
            return False
        entries = self._held or self._entries.take(_COPY_BYTES)
        if not entries:
            return False
        appends, cursors, taken = self._batch(entries)
        try:
            group_commit.store_copied(appends, cursors)
        except StorageFullError as error:
            self._held, self._fault = entries, str(error)
            self._not_before = time.monotonic() + _RETRY_SECONDS
            return False
        for entry in entries[:taken]:
            replay_entry(entry, self._sessions)
        self._held, self._fault = entries[taken:], ""
        return True

    def start(self) -> None:
        """Begin to fetch."""
        self._entries.start()

    def stop(self) -> None:
        """Fetch no more."""
        self._entries.stop()

    def describe(self) -> dict[str, Any]:
        """State for `stats`."""
        state = self._entries.describe()
        return {**state, "fault": self._fault or state["fault"]}

    def _batch(self, entries: Sequence[Entry]) -> tuple[list[Append], bytes, int]:
        """Entries for one write: those with records, up to a change of cursors; and how many they are."""
        due = self._journal.written.position + 1
        batch: list[Append] = []
        for taken, entry in enumerate(entries, 1):
            header = entry.header
            if header.type == EntryType.CURSORS:
                return batch, bytes(entry.data[entry_format.ENTRY_HEADER_BYTES :]), taken
            if header.position != due:
                raise CopyFailedError(
                    f"position {header.position} of the mirror does not follow {due - 1}: this base is no"
                    " copy of it any more"
                )
            records = [
                Record(place.kind, place.flags, entry.data[place.start : place.start + place.length])
                for place in entry_format.record_places(entry.data, header)
            ]
            batch.append(Append(header.session, header.seq, records, header.flags, header.time_ms))
            due += header.count
        return batch, b"", len(entries)


class _CopyOf(msgspec.Struct):
    history: str


def open_copying(
    datadir: DataDir,
    settings: Settings,
    journal: JournalWriter,
    sessions: Sessions,
    wake: Callable[[], None],
) -> Copying | NoCopying:
    """What copies the mirror in the settings, if there is one. It is not started.

    Raises:
        ConfigError: the base is no copy of that mirror, or there is none.
        StoredError: a new copy can't begin, as the bucket does not answer.
    """
    files, stored, position = datadir.files, datadir.folders.stored, journal.mark.position
    if not settings.follow_mirror:
        note_source(files, stored, None, position)
        return NoCopying()
    from perstack_stored.mirror.bucket import Access, Bucket  # noqa: PLC0415 - an extra

    place = parse_url(settings.follow_mirror, "follow-mirror")
    bucket = Bucket(place, Access(settings.mirror_endpoint, settings.mirror_credentials))
    wanted = settings.follow_history or source_of(files, stored)
    history = history_of(bucket, place, wanted) if wanted is None else bytes.fromhex(wanted)
    note_source(files, stored, history.hex(), position)
    follower = Follower(MirrorSource(bucket, place.prefix, history, position), wake)
    return Copying(follower, journal, sessions)


def source_of(files: FileSystem, stored_dir: int) -> str | None:
    """The history that a base is a copy of; None if it is none.

    Raises:
        ConfigError: what is noted can't be read.
    """
    data = read_whole(files, NAME, dir_fd=stored_dir, most=_FILE_BYTES_MAX)
    if data is None:
        return None
    try:
        history = msgspec.json.decode(data, type=_CopyOf).history
    except (msgspec.DecodeError, UnicodeDecodeError):
        history = ""
    if not is_store(history):
        raise ConfigError(f".stored/{NAME} can't be read: use a new base for the copy")
    return history


def note_source(files: FileSystem, stored_dir: int, history: str | None, position: int) -> None:
    """Note in a base of which history it is a copy; None: of none, from now on.

    Raises:
        ConfigError: it is a base of its own, or the copy of another history.
    """
    if history is None:
        if NAME in files.list_dir(stored_dir):
            files.unlink(NAME, dir_fd=stored_dir)
            files.sync(stored_dir)
        return
    before = source_of(files, stored_dir)
    if before is None and position:
        raise ConfigError("the base has records of its own: a copy of a mirror needs a new base")
    if before not in {None, history}:
        raise ConfigError(f"the base is a copy of the history {before}, not of {history}: use a new base")
    if before is None:
        atomic_replace(files, NAME, msgspec.json.encode(_CopyOf(history)), _FILE_MODE, dir_fd=stored_dir)
