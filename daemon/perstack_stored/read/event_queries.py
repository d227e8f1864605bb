"""Queries for the events of a run: their metadata by step, and their contents by time."""

from collections.abc import Iterator
from typing import Any

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.index import event_reader
from perstack_stored.read.as_of import requested
from perstack_stored.read.listing_cache import START, Cursor, Listing, Page
from perstack_stored.read.source import (
    LIMIT_MAX,
    PAGE_ROWS,
    Answer,
    Source,
    cursor_of,
    json_array,
    parts_of,
)

_NO_RUN = -1


def _event_bounds(source: Source, arguments: dict[str, Any]) -> dict[str, Any]:
    """Parameters that every page of a listing of events binds. Events stored later are in no page."""
    after = cursor_of(arguments, int, int) or [-1, -1]
    # The cursor first: events that are indexed before the next query are excluded by it.
    (newest,) = source.database.execute("SELECT position FROM cursor").fetchone()
    as_of, fields = requested(source, arguments)
    newest = newest if as_of is None else as_of
    run = source.database.execute(
        "SELECT id, stirred FROM run WHERE job = :jobId AND name = :runId", arguments
    ).fetchone() or (_NO_RUN, 0)
    return {
        "run": run[0],
        "stirred": run[1],
        "newest": newest,
        "a": after[0],
        "b": after[1],
        "fields": fields,
    }


def get_events_by_run(source: Source, arguments: dict[str, Any]) -> Answer:
    """Timestamp, step and type of each event of a run, by step."""
    bound = _event_bounds(source, arguments)
    after = (bound["a"], bound["b"])
    limit = arguments.get("limit")
    if limit is None:
        listing = None
        if after == START and not bound["fields"]:
            listing = source.listings.of(source.database, bound["run"], bound["newest"], bound["stirred"])
        return Answer(bound["fields"], _metas(source, bound, after, listing))
    page = _meta_page(source, bound, after, min(limit, LIMIT_MAX))
    more = not page.ends and _meta_page(source, bound, page.last, 1).text
    _check_run(source, bound["run"])
    return Answer({"next": page.last if more else None, **bound["fields"]}, iter([b"[", page.text, b"]"]))


def _metas(source: Source, bound: dict[str, Any], after: Cursor, listing: Listing | None) -> Iterator[bytes]:
    """Pieces of the whole listing: cached pages, and missing ones as they are queried."""
    page, before = Page(b"", after, ends=False), b"["
    while not page.ends:
        after = page.last
        known = None if listing is None else listing.pages.get(after)
        page = _meta_page(source, bound, after, PAGE_ROWS) if known is None else known
        if known is None and listing is not None:
            source.listings.add(listing, after, page)
        if page.text:
            yield before
            yield page.text
            before = b","
    _check_run(source, bound["run"])
    yield b"]" if before == b"," else b"[]"


def _meta_page(source: Source, bound: dict[str, Any], after: Cursor, rows: int) -> Page:
    """A page of at most `rows` items after a cursor."""
    texts: list[str] = []
    last = after
    for events in event_reader.by_step(source.database, bound["run"], after, bound["newest"], rows):
        types = {type: msgspec.json.encode(type).decode() for type in {event[3] for event in events}}
        texts += [
            f'{{"timestamp":{timestamp},"stepNumber":{step},"type":{types[type]}}}'
            for step, _, timestamp, type in events
        ]
        last = events[-1][:2]
    text = ",".join(texts).encode()
    if len(texts) == rows:
        return Page(text, last, ends=False)
    return Page(text, (last[0], bound["newest"]), ends=True)


def get_event_contents(source: Source, arguments: dict[str, Any]) -> Answer:
    """Some events of a run by timestamp, or a part of each."""
    bound = _event_bounds(source, arguments)
    backward = arguments.get("newestFirst", False)
    after = event_reader.AFTER_ALL if backward and "after" not in arguments else (bound["a"], bound["b"])
    types = arguments.get("types")
    wanted = event_reader.Wanted(
        bound["newest"],
        arguments.get("minStep", -(2**60)),
        arguments.get("maxStep", 2**60),
        None if types is None else frozenset(types),
        backward,
    )
    limit = arguments.get("limit")
    made = parts_of(source, arguments)
    if limit is None:
        portions = _contents(source, bound["run"], after, wanted)
        return Answer(bound["fields"], json_array(values for rows in portions for values in made(rows)))
    limit = min(limit, LIMIT_MAX)
    rows = [row for rows in _contents(source, bound["run"], after, wanted, limit + 1) for row in rows]
    rows, more = rows[:limit], len(rows) > limit
    return Answer({"next": rows[-1][4:] if more else None, **bound["fields"]}, json_array(made(rows)))


def _check_run(source: Source, run: int) -> None:
    """Check, after all rows of a run were read, that it was there: else the answer would lack some silently.

    Raises:
        Refusal: READ_GONE: it was deleted meanwhile.
    """
    if run == _NO_RUN:
        return
    if source.database.execute("SELECT 1 FROM run WHERE id = ?", (run,)).fetchone() is None:
        raise Refusal(ErrorCode.READ_GONE, "the run was deleted while it was read")


def _contents(
    source: Source, run: int, after: Cursor, wanted: event_reader.Wanted, limit: int = 2**60
) -> Iterator[list[list[Any]]]:
    """Address, timestamp and position of events after a cursor in portions, at most `limit`."""
    for events in event_reader.by_time(source.database, run, after, wanted, limit):
        yield [[*event[2:], event[1]] for event in events]
    _check_run(source, run)
