"""The list of deletions that `dump --deletions` writes, and `restore --deletions` applies to a backup."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError, Refusal
from perstack_stored.journal.entry_format import NO_SESSION, Record
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model import deletions
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.journal_deletions import JournalDeletions
from perstack_stored.offline.locked import keeping_sessions

_AT_ONCE = 1000


class Listed(NamedTuple):
    """A deletion, and the position that it had in the base of the list."""

    position: int
    deletion: Deletion


def line_of(position: int, time_ms: int, deletion: Deletion) -> bytes:
    """A deletion as a line of the list."""
    facts = {"position": position, "time": time_ms, "jobId": deletion.jobId}
    run = {} if deletion.runId is None else {"runId": deletion.runId}
    return json.dumps({**facts, **run, "why": deletion.why}, ensure_ascii=False).encode() + b"\n"


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
    known = JournalDeletions()
    reader = JournalReader(files, journal_dir)
    for entry in reader.entries(reader.start(), journal.mark, split_large=True):
        known.note_entry(entry)
    reader.close()
    held = {(position, one.jobId, one.runId) for position, _, one in known.listed}
    missing = {
        (one.deletion.jobId, one.deletion.runId): one.deletion
        for one in listed
        if (one.position, one.deletion.jobId, one.deletion.runId) not in held
    }
    records = [Record(Kind.DELETION, 0, deletions.encode(deletion)) for deletion in missing.values()]
    for start in range(0, len(records), _AT_ONCE):
        journal.append([Append(NO_SESSION, 0, records[start : start + _AT_ONCE])])
    journal.close()
    return len(records)
