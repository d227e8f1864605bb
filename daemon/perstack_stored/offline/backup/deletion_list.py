"""The list of deletions that `dump --deletions` writes, and `restore --deletions` applies to a backup."""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError, Refusal
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import NO_SESSION, Record, RecordPlace
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model import deletions, gaps
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.erasures import OF_SETTING
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask
from perstack_stored.model.owners import owner_of
from perstack_stored.offline.journal_deletions import JournalDeletions
from perstack_stored.offline.locked import keeping_sessions

_AT_ONCE = 1000
_BYTES_AT_ONCE = 4 << 20
_Key = tuple[str, str | None, bool]


class Listed(NamedTuple):
    """A deletion, and the position that it had in the base of the list."""

    position: int
    deletion: Deletion


def line_of(position: int, time_ms: int, deletion: Deletion, *, show_secrets: bool) -> bytes:
    """A deletion as a line of the list; of a redaction with the setting that counts."""
    facts = {"position": position, "time": time_ms, "jobId": deletion.jobId}
    run = {} if deletion.runId is None else {"runId": deletion.runId}
    line = json.dumps({**facts, **run, "why": deletion.why}, ensure_ascii=False).encode()
    if deletion.is_redaction:
        setting = deletion.value if show_secrets else mask(deletion.value)
        # A raw line break can only be white space between tokens.
        setting = setting.replace(b"\r", b" ").replace(b"\n", b" ")
        line = line[:-1] + b', "setting": ' + setting + b"}"
    return line + b"\n"


def read_list(path: str) -> list[Listed]:
    """Read a list.

    Raises:
        ConfigError: it can't be read, or a line of it is no deletion; the message names the line.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"can't read the list of deletions {path}: {error.strerror}") from error
    listed = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            found = json.loads(line)
            position = found["position"]
            deletion = deletions.check(line)
            deletions.check_operation(deletion.op, deletion)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{where}: it is no line of `dump --deletions`") from error
        except Refusal as refusal:
            raise ConfigError(f"{where}: {refusal.message}") from None
        if type(position) is not int or position < 1:
            raise ConfigError(f"{where}: position must be an integer from 1 on")
        listed.append(Listed(position, deletion))
    return listed


def apply_list(files: FileSystem, journal_dir: int, listed: Sequence[Listed]) -> int:
    """Store the deletions of a list that a journal does not hold at their positions; returns their count.

    They are on disk when it returns. Nobody else has the journal.

    Raises:
        StoredError, OSError: the journal can't be read or written.
    """
    settings = Settings()
    journal = JournalWriter(
        files,
        journal_dir,
        keeping_sessions(settings),
        JournalOptions(settings.first_segment_bytes, settings.first_segment_bytes, ahead=False),
    )
    missing = _missing(JournalReader(files, journal_dir), journal.mark, listed)
    for records in _in_batches(missing):
        journal.append([Append(NO_SESSION, 0, records)])
    journal.close()
    return len(missing)


def _missing(reader: JournalReader, until: LogPosition, listed: Sequence[Listed]) -> list[Deletion]:
    """What a journal lacks of a list, in order. A redaction without a setting in the journal is left out."""
    known, settings = JournalDeletions(), _Settings(listed)
    for entry in reader.entries(reader.start(), until, split_large=True):
        known.note_entry(entry)
        settings.note_entry(entry, reader)
    reader.close()
    held = {(position, *_key(one)) for position, _, one in known.listed}
    missing: dict[_Key, Deletion] = {}
    for one in listed:
        key = _key(one.deletion)
        if (one.position, *key) in held:
            continue
        if one.deletion.is_redaction and not settings.has(one.deletion):
            continue  # the run came after the backup, or went before the redaction
        settings.note(one.deletion)
        missing.pop(key, None)
        missing[key] = one.deletion
    return list(missing.values())


def _key(deletion: Deletion) -> _Key:
    return deletion.jobId, deletion.runId, deletion.is_redaction


def _in_batches(missing: Sequence[Deletion]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for deletion in missing:
        payload = deletions.encode(deletion)
        if batch and (len(batch) == _AT_ONCE or size + len(payload) > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(Record(Kind.DELETION, 0, payload))
        size += len(payload)
    if batch:
        yield batch


class _Settings:
    """Runs of redactions that have a setting in a journal."""

    def __init__(self, listed: Sequence[Listed]) -> None:
        """Look for those of a list."""
        self._wanted = {
            (one.deletion.jobId, one.deletion.runId) for one in listed if one.deletion.is_redaction
        }
        self._there: set[tuple[str, str | None]] = set()

    def has(self, redaction: Deletion) -> bool:
        """Whether there is a setting that a redaction takes the place of."""
        return (redaction.jobId, redaction.runId) in self._there

    def note_entry(self, entry: Entry, reader: JournalReader) -> None:
        """Note settings and deletions of an entry; entries come in order."""
        if not self._wanted:
            return
        for place in entry_format.record_places(entry.data, entry.header):
            if place.kind == Kind.DELETION:
                self.note(deletions.decode(_payload(entry, place, reader)))
            elif place.kind == Kind.RUN_SETTING:
                self._add(owner_of(place.kind, _payload(entry, place, reader)))
            elif place.kind == Kind.GAP:
                gap = gaps.decode(_payload(entry, place, reader))
                if gap.op == OF_SETTING:  # a redaction was erased that a later one replaced
                    self._add((gap.jobId, gap.runId))

    def note(self, deletion: Deletion) -> None:
        """Note what a deletion or redaction does."""
        if deletion.is_redaction:
            self._add((deletion.jobId, deletion.runId))
            return
        gone = {key for key in self._there if key[0] == deletion.jobId and deletion.runId in {None, key[1]}}
        self._there -= gone

    def _add(self, key: tuple[str, str | None]) -> None:
        if key in self._wanted:
            self._there.add(key)


def _payload(entry: Entry, place: RecordPlace, reader: JournalReader) -> bytes:
    """The payload of a record, also of a large one of which the entry has the head only."""
    if entry.payload_crc is not None:
        return reader.payload(entry.segment, entry.offset + place.start, place.length)
    return bytes(entry.data[place.start : place.start + place.length])
