"""`dump`: the records of the journal as JSON lines, in order. Reads only."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from perstack_stored.datadir.layout import DataDir
from perstack_stored.errors import ConfigError, DamageError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import RecordPlace
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions, gaps, values
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask
from perstack_stored.offline.backup.deletion_list import line_of
from perstack_stored.offline.check.journal import recover_only
from perstack_stored.offline.journal_deletions import JournalDeletions
from perstack_stored.protocol import frames


class Wanted(NamedTuple):
    """Filter and options of a dump."""

    after: int = 0
    limit: int | None = None
    job: str | None = None
    show_secrets: bool = False
    only_deletions: bool = False


def dump(base: DataDir, wanted: Wanted) -> Iterator[bytes]:
    """Yield records as lines of JSON; values are as stored, except for line breaks and secrets.

    Raises:
        ConfigError: there is no journal.
        DamageError: the journal is damaged; all lines before the damage were yielded.
    """
    with contextlib.closing(JournalReader(base.files, base.folders.journal)) as reader:
        if not reader.chain.last:
            raise ConfigError(f"{base.path} has no journal to dump")
        yield from _lines(base, reader, wanted)


def _lines(base: DataDir, reader: JournalReader, wanted: Wanted) -> Iterator[bytes]:
    until, damage = _end(base, reader)
    deleted = deletions_in(reader, until)
    if wanted.only_deletions:
        chosen = [
            one for one in deleted.in_force() if one[0] > wanted.after and wanted.job in {None, one[2].jobId}
        ]
        yield from (line_of(*one, show_secrets=wanted.show_secrets) for one in chosen[: wanted.limit])
        if damage is not None:
            raise damage
        return
    given = 0
    for entry in reader.entries(reader.seek(wanted.after, until), until):
        for number, place in enumerate(entry_format.record_places(entry.data, entry.header)):
            if given == wanted.limit:
                return
            payload = bytes(entry.data[place.start : place.start + place.length])
            if entry.header.position + number <= wanted.after:
                continue
            if place.kind == Kind.GAP:
                gap = gaps.decode(payload)
                if not gap.removed and wanted.job in {None, gap.job}:
                    yield _gap_line(entry, number, payload)
                    given += 1
            elif _is_wanted(entry.header.position + number, place.kind, payload, deleted, wanted.job):
                yield _line(entry, number, place, payload, show_secrets=wanted.show_secrets)
                given += 1
    if damage is not None and given != wanted.limit:
        raise damage


def _end(base: DataDir, reader: JournalReader) -> tuple[LogPosition, DamageError | None]:
    """Log position up to which the journal can be read, and the damage there, if any."""
    try:
        found = recover_only(base.files, base.folders.journal)
    except DamageError as error:
        return LogPosition(error.position - 1, reader.chain.last, error.offset), error
    return LogPosition(found.position, found.number, found.end), None


def deletions_in(reader: JournalReader, until: LogPosition) -> JournalDeletions:
    """The deletions of a journal, up to `until`, or to the first damage: a dump ends there as well."""
    found = JournalDeletions()
    with contextlib.suppress(DamageError):
        for entry in reader.entries(reader.start(), until, split_large=True):
            found.note_entry(entry)
    return found


def _is_wanted(position: int, kind: int, payload: bytes, deleted: JournalDeletions, job: str | None) -> bool:
    if job is None and not deleted:
        return True
    is_setting = kind == Kind.RUN_SETTING
    if kind == Kind.DELETION:
        deletion = deletions.decode(payload)
        owner, is_setting = (deletion.jobId, deletion.runId or ""), deletion.is_redaction
        if not is_setting:
            return job in {None, owner[0]}
    else:
        owner = values.owner_of(values.decode(kind, payload))
    return job in {None, owner[0]} and not deleted.has(position, *owner, is_setting=is_setting)


def _gap_line(entry: Entry, number: int, payload: bytes) -> bytes:
    """The line of a lost record, with what is known of it."""
    head = frames.encode({"position": entry.header.position + number, "time": entry.header.time_ms})
    return head[:-1] + b',"gap":' + (payload or b"{}") + b"}\n"


def _line(entry: Entry, number: int, place: RecordPlace, payload: bytes, *, show_secrets: bool) -> bytes:
    header = entry.header
    facts: dict[str, object] = {
        "position": header.position + number,
        "time": header.time_ms,
        "op": frames.op_of(place.kind, payload),
    }
    if header.session != entry_format.NO_SESSION:
        facts |= {"session": header.session.hex(), "seq": header.seq + number}
    if place.flags & entry_format.FLAG_IMPORTED:
        facts["imported"] = True
    if place.flags & entry_format.FLAG_RESTORED:
        facts["restored"] = True
    if place.kind in {Kind.RUN_SETTING, Kind.DELETION} and not show_secrets:
        payload = mask(payload)
    # A raw line break can only be white space between tokens.
    value = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return frames.encode(facts)[:-1] + b',"value":' + value + b"}\n"
