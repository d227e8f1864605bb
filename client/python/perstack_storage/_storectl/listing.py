"""The commands that list and print what is stored as it is, and ask how the daemon does."""

import argparse
from itertools import takewhile
from typing import Any

from perstack_storage import JobFilters, Page
from perstack_storage._core.masking import masked
from perstack_storage._storectl import ids, runs, style
from perstack_storage._storectl.call import OK, Call, Missing, pages
from perstack_storage._storectl.following import CONTENT_COLUMNS, EVENT_COLUMNS, follow_events, is_within
from perstack_storage._storectl.tables import Column
from perstack_storage._views import graph
from perstack_storage._views.units import number, span_of, when_s

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


# --- what is stored ----------------------------------------------------------------------------------


def _took(value: Any) -> str:
    end = value["lastEventAt"]
    return "" if end is None else span_of(end - value["startedAt"])


def _status(value: Any) -> str:
    """Of the job or last checkpoint; else of the event that ended the run."""
    return value["status"] or graph.STATUS_OF_TYPE.get(value["end"], "unknown")


_STATUS = Column("status", _status, style=lambda v: style.of_status(_status(v)))
_EVENTS = Column("events", lambda v: number(v["records"]["events"]), right=True, drop=2)
_STARTED = Column("started", lambda v: when_s(v["startedAt"]), drop=3)
_TOOK = Column("took", _took, right=True, drop=4)
_EXPERT = Column("expert", lambda v: v["expertKey"], drop=5)
_JOB_COLUMNS = (
    Column("job", lambda v: v["jobId"]),
    _STATUS,
    Column("runs", lambda v: number(v["runs"]), right=True, drop=6),
    _EVENTS,
    Column("tokens", lambda v: number((v["usage"] or {}).get("totalTokens")), right=True, drop=1),
    _STARTED,
    _TOOK,
    _EXPERT,
)
# Without tokens: those of a run are cumulative, see `usage`.
_RUN_COLUMNS = (
    Column("job", lambda v: v["jobId"]),
    Column("run", lambda v: v["runId"]),
    _EXPERT._replace(drop=1),
    _STATUS,
    _EVENTS,
    _TOOK,
    _STARTED._replace(drop=5),
)
_SETTING_COLUMNS = (
    Column("job", lambda v: v["jobId"]),
    Column("run", lambda v: v["runId"]),
    Column("model", lambda v: v["model"], drop=2),
    Column("started", lambda v: when_s(v["startedAt"]), drop=4),
    Column("updated", lambda v: when_s(v["updatedAt"]), drop=3),
    Column("expert", lambda v: v["expertKey"], drop=1),
)
_CHECKPOINT_COLUMNS = (
    Column("checkpoint", lambda v: v["id"]),
    Column("step", lambda v: v["stepNumber"], right=True),
    Column("status", lambda v: v["status"], style=lambda v: style.of_status(v["status"])),
    Column("messages", lambda v: len(v["messages"]), right=True, drop=2),
    Column("run", lambda v: v["runId"], drop=1),
    Column("expert", lambda v: v["expert"]["key"], drop=3),
)


def jobs(call: Call) -> int:
    """All jobs of which anything is stored."""
    given = call.given

    def fetch(limit: int, after: Any) -> Page[Any]:
        return call.client.list_jobs(limit, after, **_filters(given))

    call.out.listing(_JOB_COLUMNS, pages(call, fetch))
    return OK


def all_runs(call: Call) -> int:
    """All runs of which anything is stored, or those of a job."""
    given = call.given
    filters = _filters(given)
    if given.job_id is not None:
        filters["job_id"] = ids.job_id(call.client, given.job_id)

    def fetch(limit: int, after: Any) -> Page[Any]:
        return call.client.list_runs(limit, after, **filters)

    columns = _RUN_COLUMNS if given.job_id is None else _RUN_COLUMNS[1:]
    call.out.listing(columns, pages(call, fetch))
    return OK


def _filters(given: argparse.Namespace) -> JobFilters:
    filters: JobFilters = {}
    if given.status is not None:
        filters["status"] = given.status
    if given.expert is not None:
        filters["expert_key"] = given.expert
    if given.since is not None:
        filters["since"] = given.since
    if given.until is not None:
        filters["until"] = given.until
    return filters


def _as_of(call: Call) -> int | None:
    """The position that is meant by `--as-of`."""
    given: int | float | None = call.given.as_of
    return call.client.position_at(given) if isinstance(given, float) else given


def job(call: Call) -> int:
    """One job."""
    as_of = _as_of(call)
    found = call.client.retrieve_job(ids.job_id(call.client, call.given.job_id), as_of=as_of)
    if found is None and as_of is not None:
        raise Missing(f"job not found as of position {as_of}: {call.given.job_id}")
    if found is None:
        raise Missing(f"job not found: {call.given.job_id}: its program stored events, but no job")
    call.out.details(found)
    return OK


def settings(call: Call) -> int:
    """All run settings."""
    found = pages(call, call.client.get_all_runs)
    call.out.listing(_SETTING_COLUMNS, found if call.given.show_secrets else map(masked, found))
    return OK


def checkpoints(call: Call) -> int:
    """The checkpoints of a job."""
    job = ids.job_id(call.client, call.given.job_id)
    as_of = _as_of(call)

    def fetch(limit: int, after: Any) -> Page[Any]:
        return call.client.get_checkpoints_by_job_id(job, limit, after, as_of=as_of)

    call.out.listing(_CHECKPOINT_COLUMNS, pages(call, fetch))
    return OK


def checkpoint(call: Call) -> int:
    """One checkpoint."""
    job = ids.job_id(call.client, call.given.job_id)
    id = ids.checkpoint_id(call.client, job, call.given.checkpoint_id)
    call.out.details(call.client.retrieve_checkpoint(job, id, as_of=_as_of(call)))
    return OK


def events(call: Call) -> int:
    """The events of a run."""
    given, client = call.given, call.client
    if given.follow:
        return follow_events(call)
    job = ids.job_id(client, given.job_id)
    run = runs.run_id(client, job, given.run_id)
    as_of = _as_of(call)

    def metas(limit: int, after: Any) -> Page[Any]:
        return client.get_events_by_run(job, run, limit, after, as_of=as_of)

    def contents(limit: int, after: Any) -> Page[Any]:
        return client.get_event_contents(job, run, given.max_step, limit, after, as_of=as_of)

    if given.contents:
        call.out.listing(CONTENT_COLUMNS, pages(call, contents))
    else:
        found = takewhile(lambda event: is_within(event, given.max_step), pages(call, metas))
        call.out.listing(EVENT_COLUMNS, found)
    return OK
