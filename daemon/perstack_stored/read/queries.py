"""The reads: the index gives addresses, the journal the bytes.

A query yields pieces of a JSON text, lazily, so that memory holds only a part of an answer of any
size. Each SQL statement returns one row, a JSON text: the interpreter's lock is taken once, not once a row.
"""

from collections.abc import Iterator
from typing import Any

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.index.deletions import Removals
from perstack_stored.index.value_lookup import PIECE_BYTES, Values, pieces_at, values_at
from perstack_stored.journal import entry_format
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model.edits import Edit, edited, joined
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask, mask_pieces
from perstack_stored.model.run_settings import setting_edits
from perstack_stored.protocol.limits import READ_ALL_RECORDS_MAX
from perstack_stored.read.as_of import CHECKPOINTS_AS_OF, requested, version_of
from perstack_stored.read.deletion_queries import list_deletions, size
from perstack_stored.read.event_queries import get_event_contents, get_events_by_run
from perstack_stored.read.listings import ListingOrder, listing
from perstack_stored.read.source import (
    ADDRESS,
    NUMBER,
    STRETCH_ANSWER_BYTES,
    Answer,
    Source,
    cursor_of,
    exact_number,
    json_array,
    parts_of,
    values_of,
)
from perstack_stored.read.summary_queries import list_jobs, list_runs
from perstack_stored.read.time_queries import position_at

from . import window, window_reader
from .record_filter import Wanted, wanted_of
from .record_form import Form, form_of

# --- rows from the index ---------------------------------------------------------------------------


# --- jobs, checkpoints, settings -------------------------------------------------------------------


def retrieve_job(source: Source, arguments: dict[str, Any]) -> Answer:
    """The job, or null."""
    as_of, fields = requested(source, arguments)
    row = version_of(source.database, Kind.JOB, arguments["jobId"], "", as_of)
    return Answer(
        fields,
        iter([b"null"]) if row is None else pieces_at(source.reader, row, source.indexed),
    )


def retrieve_checkpoint(source: Source, arguments: dict[str, Any]) -> Answer:
    """The checkpoint.

    Raises:
        Refusal: NOT_FOUND.
    """
    as_of, fields = requested(source, arguments)
    id = arguments["checkpointId"]
    row = version_of(source.database, Kind.CHECKPOINT, arguments["jobId"], id, as_of)
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"checkpoint not found: {id}")
    return Answer(fields, pieces_at(source.reader, row, source.indexed))


_JOBS = ListingOrder(
    f"{ADDRESS}, started_at, id",
    f"{ADDRESS}, {exact_number('started_at')}, id",
    "job ORDER BY started_at DESC, id",
    ("started_at = :a AND id > :b", "id"),
    ("started_at < :a", "started_at DESC, id"),
    cursor=2,
)
_CHECKPOINTS = ListingOrder(
    f"{ADDRESS}, step, position",
    f"{ADDRESS}, step, position",
    "checkpoint WHERE job = :job ORDER BY step, position",
    ("(step, position) > (:a, :b)", "step, position"),
    cursor=2,
)
_EDITS = "sent_start, sent_start + length(sent_at) AS sent_end, body_end"
_RUNS = ListingOrder(
    f"{ADDRESS}, rewritten, lacks, {_EDITS}, updated_at, job, name",
    f"{ADDRESS}, rewritten, lacks, sent_start, sent_end, body_end, {exact_number('updated_at')}, job, name",
    "setting ORDER BY updated_at DESC, job, name",
    ("updated_at = :a AND (job, name) > (:b, :c)", "job, name"),
    ("updated_at < :a", "updated_at DESC, job, name"),
    cursor=3,
)


def get_all_jobs(source: Source, arguments: dict[str, Any]) -> Answer:
    """All jobs, newest first."""
    after = cursor_of(arguments, NUMBER, str)
    return listing(source, _JOBS, {}, arguments, after, values_of(source))


def get_checkpoints_by_job_id(source: Source, arguments: dict[str, Any]) -> Answer:
    """All checkpoints of a job by step."""
    after = cursor_of(arguments, int, int)
    as_of, fields = requested(source, arguments)
    bound = {"job": arguments["jobId"], "as_of": as_of}
    order = _CHECKPOINTS if as_of is None else CHECKPOINTS_AS_OF
    answer = listing(source, order, bound, arguments, after, parts_of(source, arguments))
    return answer._replace(fields=answer.fields | fields)


def get_all_runs(source: Source, arguments: dict[str, Any]) -> Answer:
    """All run settings, the one updated last first."""
    after = cursor_of(arguments, NUMBER, str, str)
    masked = "masked" in arguments
    return listing(source, _RUNS, {}, arguments, after, lambda rows: _settings(source, rows, masked=masked))


def _settings(source: Source, rows: list[list[Any]], *, masked: bool) -> Iterator[Values]:
    remaining = iter(rows)
    for some in values_at(source.reader, rows, source.indexed):
        if isinstance(some, list):
            texts = [b"".join(edited([bytes(payload)], _edits(next(remaining)))) for payload in some]
            yield [memoryview(mask(text) if masked else text) for text in texts]
            continue
        row = next(remaining)
        edits = _edits(row)
        pieces = edited(some, edits)
        if masked:
            pieces = mask_pieces(joined(pieces, row[2] + sum(len(instead) for _, _, instead in edits)))
        yield pieces


def _edits(row: list[Any]) -> list[Edit]:
    _, _, size, _, rewritten, missing_defaults, start, end, body_end, updated_at = row[:10]
    return setting_edits(size, bool(rewritten), missing_defaults, (start, end), body_end, updated_at)


# --- events ----------------------------------------------------------------------------------------


# --- the journal by position -----------------------------------------------------------------------


def read_all(source: Source, arguments: dict[str, Any]) -> Answer:
    """Records after a position, in order, without events that repeat an earlier one.

    All records: as many as asked for, read as they are sent. For a subscription, or with a filter: those of
    one read window, which may be none. With `last`, `after` is set in the arguments.
    """
    limit = min(arguments.get("limit", READ_ALL_RECORDS_MAX), READ_ALL_RECORDS_MAX)
    wanted = wanted_of(arguments)
    until = source.indexed()
    if "last" in arguments:
        arguments["after"] = window_reader.before_last(source, until, wanted, arguments["last"])
    after = arguments.get("after", 0)
    if "waitMs" in arguments or not wanted.is_all:
        return _read_window(source, after, until, wanted, limit)
    last = min(until.position, after + limit)
    lost = window_reader.gaps_between(source.database, after, last)
    last = window.reach(lost, last)
    repeats = window_reader.repeats_between(source.database, after, last)
    following = max(last, after)
    return Answer(
        window.answer_fields(following, window.clip(lost, after, last)),
        json_array(_records(source, after, last, until, repeats, wanted.form)),
    )


def _read_window(source: Source, after: int, until: LogPosition, wanted: Wanted, limit: int) -> Answer:
    if after >= until.position:
        return Answer({"next": after}, iter([b"[]"]))
    if wanted.job is None:
        found = window_reader.read(source.database, source.reader, after, until)
    else:
        found = window_reader.read_of_job(source.database, source.reader, after, until, wanted.job)
    taken = found.take(after, wanted, limit, STRETCH_ANSWER_BYTES)
    fields = window.answer_fields(taken.next, found.gaps(after, taken.next))
    if taken.large is None:
        return Answer(fields, iter([taken.body]))
    large = window.pieces_of(taken.large, source.reader, source.indexed, wanted.form)
    return Answer(fields, json_array([large]))


def _records(
    source: Source, after: int, last: int, until: LogPosition, repeats: set[int], form: Form
) -> Iterator[Values]:
    if after >= last:
        return
    removals = Removals(source.database, after)
    entries = window_reader.entries(source.database, source.reader, after, until)
    for segment, offset, header, data, payload_crc in entries:
        if header.position > last:
            return
        if payload_crc is not None:
            large = window.large_of(Entry(segment, offset, header, data, payload_crc))
            is_there = large.kind != Kind.GAP and not (
                removals and _is_large_removed(source, large.position, large.kind)
            )
            if large.position > after and large.position not in repeats and is_there:
                yield window.pieces_of(large, source.reader, source.indexed, form)
            continue
        items: list[memoryview] = []
        size = 0
        for position, item in enumerate(entry_format.record_places(data, header), header.position):
            if after < position <= last and position not in repeats and item.kind != Kind.GAP:
                payload = data[item.start : item.start + item.length]
                if removals and window_reader.is_removed(removals, position, item.kind, payload):
                    continue
                text = window.item_of(position, header.time_ms, item.kind, payload, form)
                items.append(memoryview(text))
                size += len(text)
                if size > PIECE_BYTES:
                    yield items
                    items, size = [], 0
        if items:
            yield items


def _is_large_removed(source: Source, position: int, kind: int) -> bool:
    removals = Removals(source.database, position)
    large = window_reader.facts_of_large(source.database, position - 1, position)
    return bool(removals) and window_reader.is_large_removed(removals, position, kind, large)


def get_event(source: Source, arguments: dict[str, Any]) -> Answer:
    """The record at a position, of any kind, as an item of `read_all`.

    Raises:
        Refusal: NOT_FOUND: nothing was stored there yet, it was lost or deleted, or repeats an earlier event.
    """
    position, until = arguments["position"], source.indexed()
    if 0 < position <= until.position and not window_reader.repeats_between(
        source.database, position - 1, position
    ):
        found = _record_at(source, position, until, form_of(arguments))
        if found is not None:
            return Answer({}, found)
    raise Refusal(ErrorCode.NOT_FOUND, f"there is no record at position {position}")


def _record_at(
    source: Source, position: int, until: LogPosition, form: Form
) -> Iterator[bytes | memoryview] | None:
    """The pieces of a record; None if it is a gap, or was deleted."""
    for entry in window_reader.entries(source.database, source.reader, position - 1, until):
        header, data = entry.header, entry.data
        if position >= header.position + header.count:
            continue
        if entry.payload_crc is not None:
            large = window.large_of(entry)
            if large.kind == Kind.GAP or _is_large_removed(source, position, large.kind):
                return None
            return window.pieces_of(large, source.reader, source.indexed, form)
        item = entry_format.record_places(data, header)[position - header.position]
        if item.kind == Kind.GAP:
            return None
        payload = data[item.start : item.start + item.length]
        removals = Removals(source.database, position)
        if removals and window_reader.is_removed(removals, position, item.kind, payload):
            return None
        return iter([window.item_of(position, header.time_ms, item.kind, payload, form)])
    return None


OPERATIONS = {
    "deletions": list_deletions,
    "sizeOf": size,
    "retrieveJob": retrieve_job,
    "retrieveCheckpoint": retrieve_checkpoint,
    "getAllJobs": get_all_jobs,
    "getCheckpointsByJobId": get_checkpoints_by_job_id,
    "getEventsByRun": get_events_by_run,
    "getEventContents": get_event_contents,
    "getAllRuns": get_all_runs,
    "readAll": read_all,
    "listJobs": list_jobs,
    "listRuns": list_runs,
    "getEvent": get_event,
    "positionAt": position_at,
}
