"""The commands that print records as they are stored, and where they begin."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from perstack_storage import Client, ErrorCode, Record, Refused
from perstack_storage._core.filters import FollowOptions
from perstack_storage._core.masking import masked_record
from perstack_storage._storectl import ids, runs, style, tables
from perstack_storage._storectl.call import OK, Call
from perstack_storage._storectl.days import Days
from perstack_storage._storectl.output import Output
from perstack_storage._storectl.tables import Column
from perstack_storage._views import wording
from perstack_storage._views.cells import GAP, Span, cell
from perstack_storage._views.units import when

EVENT_COLUMNS = (
    Column("time", lambda v: when(v["timestamp"]), style=lambda _: "dim"),
    Column("step", lambda v: v["stepNumber"], right=True),
    Column("type", lambda v: v["type"]),
)
_SHOWN_OF_EVENT = {"timestamp", "stepNumber", "type", "jobId", "runId"}
CONTENT_COLUMNS = (
    *EVENT_COLUMNS,
    Column("content", lambda v: {key: item for key, item in v.items() if key not in _SHOWN_OF_EVENT}),
)
_COMMIT_EVERY_S = 1.0
_TIME_WIDTH = 29
_ID_MAX = 12
"""Of ids on a narrow terminal."""
_SHORT_OPS = {
    "storeJob": "job",
    "storeCheckpoint": "checkpoint",
    "storeRunSetting": "setting",
    "storeEvent": "event",
    "deleteJob": "delete",
    "deleteRun": "delete",
    "redactRunSetting": "redact",
}


def is_within(event: Any, max_step: int | None) -> bool:
    """Whether the step of an event is not above the highest one wanted."""
    return max_step is None or event["stepNumber"] <= max_step


def follow_events(call: Call) -> int:
    """The events of a run, as they are stored. Ids are taken as they are given: the run may come later."""
    given, out = call.given, call.out
    job = given.job_id or ids.job_id(call.client, None)
    run = given.run_id or runs.run_id(call.client, job, None)
    columns = CONTENT_COLUMNS if given.contents else EVENT_COLUMNS
    records = call.client.follow(job_id=job, run_id=run, ops=["storeEvent"], idle_s=given.idle)
    values: Iterator[Any] = (record["value"] for record in records)
    events = (event for event in values if is_within(event, given.max_step))
    for event in islice(events, given.limit):
        if out.as_json:
            out.line(tables.json_line(event if given.contents else _meta(event)), flush=True)
        else:
            _line(out, [Span(cell(column.of(event))) for column in columns], (_TIME_WIDTH, 5, 22))
    return OK


def _meta(event: Any) -> dict[str, Any]:
    return {key: event[key] for key in ("timestamp", "stepNumber", "type")}


def follow(call: Call) -> int:
    """Every record, as it is stored."""
    given, days = call.given, Days(call.out)
    after = given.after if given.since is None else before_time(call.client, given.since)
    which: FollowOptions = {
        "job_id": given.job,
        "run_id": given.run,
        "types": given.type,
        "idle_s": given.idle,
        "store": given.store,
        "epoch": given.epoch,
        "last": 0 if given.new else given.last,
        "name": given.name,
        "commit_every": _COMMIT_EVERY_S if given.commit else None,
    }
    records = islice(call.client.follow(after, **which), given.limit)
    printed: Record | None = None
    try:
        for record in records:
            _print(call, days, record)
            printed = record
    finally:
        if given.commit and printed is not None:
            _commit(call.client, printed)
    return OK


def _commit(client: Client, record: Record) -> None:
    """Set the cursor to the last record that was printed, unless it is further on."""
    try:
        client.commit(record)
    except Refused as refused:
        if refused.code != ErrorCode.CURSOR_BACK:
            raise


def _print(call: Call, days: Days, record: Record) -> None:
    value: Any = record["value"]
    if not call.given.show_secrets:
        value = masked_record(record["op"], value)
    if call.out.as_json:
        call.out.line(tables.json_line({**record, "value": value}), flush=True)
    else:
        _record_line(call.out, days.time(record["time"]), record["position"], record["op"], value)


def _record_line(out: Output, time: str, position: int, op: str, value: Any) -> None:
    """A record; on a terminal with what an event says, as far as there is room."""
    job = value["id"] if op == "storeJob" else value["jobId"]
    parts = [part for part in (job, value.get("runId")) if part]
    what = value.get("type", value.get("status", value.get("why")))
    is_event = op == "storeEvent"
    named = wording.style_of(value) if is_event else style.of_status(what)
    if not out.wide:
        parts = [wording.cut(part, _ID_MAX) for part in parts]
        op, what = _SHORT_OPS.get(op, op), wording.label_of(what) if is_event else what
    row = [
        Span(cell(position)),
        Span(time, "dim"),
        Span(op, "" if is_event else "bold"),
        Span(cell(what), named),
        Span(cell("/".join(parts))),
    ]
    if is_event and out.width is not None:
        row.append(Span(wording.text_of(value), "dim"))
    _line(out, row, (8, len(time), 15, 26, 0) if out.wide else (6, len(time), 10, 10, 0))


def _line(out: Output, row: Sequence[Span], widths: Sequence[int]) -> None:
    """A line of a table whose later lines are not known yet: a longer cell pushes the others on."""
    spans: list[Span] = []
    for number, (text, named) in enumerate(row):
        spans += [Span(text.ljust(widths[number]) if number < len(widths) else text, named), Span(GAP)]
    out.spans(spans[:-1], cut=True, flush=True)


# --- where to begin ----------------------------------------------------------------------------------


def _end(client: Client) -> int:
    return int(client.stats()["position"])


def before_time(client: Client, time_ms: float) -> int:
    """The position before the first record that was stored at this time or later, in ms since 1970.

    By bisection: where the clock of the daemon's machine went back, it may be another such record.
    """
    low, high = 0, _end(client)
    while low < high:
        middle = (low + high) // 2
        record = _first_between(client, middle, high)
        if record is None or record["time"] >= time_ms:
            high = middle
        else:
            low = int(record["position"])
    return low


def _first_between(client: Client, after: int, last: int) -> Any:
    """The first record after a position, up to another; None where there is none, but repeats or gaps."""
    while after < last:
        page = client.read_all(after, limit=1)
        if page:
            return page[0] if page[0]["position"] <= last else None
        after = page.next
    return None
