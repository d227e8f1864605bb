"""What the commands of `perstack-storectl` do, each a function of a client and what was given."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, takewhile
from typing import IO, Any, NamedTuple

from perstack_storage import Client, Page, Refused
from perstack_storage._core.escape import escaped, shell_word
from perstack_storage._core.jsonio import dumps, loads
from perstack_storage._core.masking import masked
from perstack_storage._storectl import tables
from perstack_storage._storectl.output import Output
from perstack_storage._storectl.tables import Column, when

OK, REFUSED, USAGE, NO_DAEMON = 0, 1, 2, 3
PROG = "perstack-storectl"
PAGE_ITEMS = 500
KINDS = {
    "job": "store_job",
    "checkpoint": "store_checkpoint",
    "event": "store_event",
    "run-setting": "store_run_setting",
}


class Call(NamedTuple):
    """What a command gets."""

    client: Client
    given: argparse.Namespace
    out: Output


Command = Callable[[Call], int]


class _InputError(Exception):
    """What came from standard input is not what it must be."""


# --- the daemon --------------------------------------------------------------------------------------


def ping(call: Call) -> int:
    """How long the daemon takes to answer."""
    seconds = call.client.ping()
    if call.out.as_json:
        call.out.details({"endpoint": call.client.endpoint, "ms": round(seconds * 1000, 3)})
    else:
        call.out.line(f"{call.client.endpoint} answered in {seconds * 1000:.1f} ms")
    return OK


def stats(call: Call) -> int:
    """The daemon's counters and gauges."""
    call.out.details(call.client.stats())
    return OK


# --- listings ----------------------------------------------------------------------------------------


def _pages(call: Call, fetch: Callable[[int, Any], Page[Any]]) -> Iterator[Any]:
    """Items page by page, up to --limit; says then how to go on."""
    left: int | None = call.given.limit
    after = call.given.after
    while left is None or left > 0:
        page = fetch(PAGE_ITEMS if left is None else min(left, PAGE_ITEMS), after)
        yield from page
        after = page.next
        if after is None:
            return
        if left is not None:
            left -= len(page)
    call.out.notes.append(f"there are more: --after {shell_word(escaped(dumps(after).decode()))}")


_JOB_COLUMNS = (
    Column("job", lambda v: v["id"]),
    Column("status", lambda v: v["status"]),
    Column("steps", lambda v: v["totalSteps"], right=True),
    Column("tokens", lambda v: v["usage"].get("totalTokens"), right=True),
    Column("started", lambda v: when(v["startedAt"])),
    Column("finished", lambda v: when(v.get("finishedAt"))),
    Column("expert", lambda v: v["coordinatorExpertKey"]),
)
_RUN_COLUMNS = (
    Column("job", lambda v: v["jobId"]),
    Column("run", lambda v: v["runId"]),
    Column("model", lambda v: v["model"]),
    Column("started", lambda v: when(v["startedAt"])),
    Column("updated", lambda v: when(v["updatedAt"])),
    Column("expert", lambda v: v["expertKey"]),
)
_CHECKPOINT_COLUMNS = (
    Column("checkpoint", lambda v: v["id"]),
    Column("step", lambda v: v["stepNumber"], right=True),
    Column("status", lambda v: v["status"]),
    Column("messages", lambda v: len(v["messages"]), right=True),
    Column("run", lambda v: v["runId"]),
    Column("expert", lambda v: v["expert"]["key"]),
)
_EVENT_COLUMNS = (
    Column("time", lambda v: when(v["timestamp"])),
    Column("step", lambda v: v["stepNumber"], right=True),
    Column("type", lambda v: v["type"]),
)
_SHOWN_OF_EVENT = {"timestamp", "stepNumber", "type", "jobId", "runId"}
_CONTENT_COLUMNS = (
    *_EVENT_COLUMNS,
    Column("content", lambda v: {key: item for key, item in v.items() if key not in _SHOWN_OF_EVENT}),
)


def jobs(call: Call) -> int:
    """All jobs."""
    call.out.listing(_JOB_COLUMNS, _pages(call, call.client.get_all_jobs))
    return OK


def job(call: Call) -> int:
    """One job."""
    job = call.client.retrieve_job(call.given.job_id)
    if job is None:
        call.out.notes.append(f"job not found: {call.given.job_id}")
        return REFUSED
    call.out.details(job)
    return OK


def runs(call: Call) -> int:
    """All run settings."""
    runs = _pages(call, call.client.get_all_runs)
    shown = runs if call.given.show_secrets else map(masked, runs)
    call.out.listing(_RUN_COLUMNS, shown)
    return OK


def checkpoints(call: Call) -> int:
    """The checkpoints of a job."""

    def fetch(limit: int, after: Any) -> Page[Any]:
        return call.client.get_checkpoints_by_job_id(call.given.job_id, limit, after)

    call.out.listing(_CHECKPOINT_COLUMNS, _pages(call, fetch))
    return OK


def checkpoint(call: Call) -> int:
    """One checkpoint."""
    given = call.given
    call.out.details(call.client.retrieve_checkpoint(given.job_id, given.checkpoint_id))
    return OK


def events(call: Call) -> int:
    """The events of a run."""
    given, client = call.given, call.client
    if given.follow:
        return _follow_events(call)

    def metas(limit: int, after: Any) -> Page[Any]:
        return client.get_events_by_run(given.job_id, given.run_id, limit, after)

    def contents(limit: int, after: Any) -> Page[Any]:
        return client.get_event_contents(given.job_id, given.run_id, given.max_step, limit, after)

    if given.contents:
        call.out.listing(_CONTENT_COLUMNS, _pages(call, contents))
    else:
        found = takewhile(lambda event: _is_within(event, given.max_step), _pages(call, metas))
        call.out.listing(_EVENT_COLUMNS, found)
    return OK


def _is_within(event: Any, max_step: int | None) -> bool:
    return max_step is None or event["stepNumber"] <= max_step


def _meta(event: Any) -> dict[str, Any]:
    return {key: event[key] for key in ("timestamp", "stepNumber", "type")}


# --- following ---------------------------------------------------------------------------------------


def _follow_events(call: Call) -> int:
    given, out = call.given, call.out
    columns = _CONTENT_COLUMNS if given.contents else _EVENT_COLUMNS
    records = call.client.follow(job_id=given.job_id, run_id=given.run_id, idle_s=given.idle)
    values: Iterator[Any] = (record["value"] for record in records if record["op"] == "storeEvent")
    events = (event for event in values if _is_within(event, given.max_step))
    for event in islice(events, given.limit):
        if out.as_json:
            out.line(tables.json_line(event if given.contents else _meta(event)), flush=True)
        else:
            _follow_line(out, [column.of(event) for column in columns], (23, 5, 22))
    return OK


def follow(call: Call) -> int:
    """Every record, as it is stored."""
    given, out = call.given, call.out
    records = call.client.follow(
        given.after,
        job_id=given.job,
        run_id=given.run,
        idle_s=given.idle,
        store=given.store,
        epoch=given.epoch,
    )
    for record in islice(records, given.limit):
        value: Any = record["value"]
        if record["op"] == "storeRunSetting" and not given.show_secrets:
            value = masked(value)
        if out.as_json:
            out.line(tables.json_line({**record, "value": value}), flush=True)
        else:
            job = value["id"] if record["op"] == "storeJob" else value["jobId"]
            place = "/".join(part for part in (job, value.get("runId")) if part)
            what = value.get("type", value.get("status"))
            cells = [record["position"], when(record["time"]), record["op"], what, place]
            _follow_line(out, cells, (8, 23, 15, 22))
    return OK


def _follow_line(out: Output, cells: Sequence[object], widths: Sequence[int]) -> None:
    """A line of a table whose later lines are not known yet: a longer cell pushes the others on."""
    texts = [tables.cell(value) for value in cells]
    filled = [text.ljust(width) for text, width in zip(texts, widths, strict=False)]
    out.line(tables.GAP.join(filled + texts[len(filled) :]).rstrip(), cut=True, flush=True)


# --- storing -----------------------------------------------------------------------------------------


def put(call: Call) -> int:
    """Store what comes in; every value is tried, whatever becomes of the others."""
    store = KINDS[call.given.kind]
    problem: _InputError | None = None
    pipeline = call.client.pipeline()
    with contextlib.suppress(Refused), pipeline:  # all refusals are looked at below
        try:
            for value in _values(sys.stdin.buffer):
                getattr(pipeline, store)(value)
        except _InputError as error:
            problem = error
    refused = {refusal.index: refusal for refusal in pipeline.refusals}
    for number, position in enumerate(pipeline.positions):
        if number in refused:
            complain(f"value {number + 1}: {refused[number].message}")
        if call.out.as_json:
            call.out.line(tables.json_line({"position": position}))
    stored = [position for position in pipeline.positions if position is not None]
    if stored and not call.out.as_json:
        what = "a value at position" if len(stored) == 1 else f"{len(stored)} values, the last at position"
        call.out.line(f"stored {what} {max(stored)}")
    if problem is not None:
        complain(f"{problem}; {len(stored)} before it were stored" if stored else str(problem))
    elif not pipeline.positions:
        complain("standard input is empty: nothing to store")
    return REFUSED if refused or problem is not None or not pipeline.positions else OK


def _values(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects that come in: one in each line, or a single one over any number of lines."""
    begun = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = loads(line)
        except ValueError as error:
            if begun:
                raise _InputError(f"line {number} is not JSON: {error}") from None
            try:
                value = loads(line + lines.read())
            except ValueError:
                raise _InputError(f"line {number} is not JSON, nor is the whole: {error}") from None
        begun = True
        if not isinstance(value, dict):
            raise _InputError(f"line {number} is not a JSON object")
        yield value


def complain(sentence: str) -> None:
    """A sentence for the person, beside the output."""
    sys.stderr.write(f"{PROG}: {escaped(sentence)}\n")
