"""The routes of the gateway: for each its parameters, and what answers it. `openapi` describes them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.answers import json_answer, listing_answer, records_answer
from perstack_storage._inspect.errors import GatewayError
from perstack_storage._inspect.export import export_job
from perstack_storage._inspect.following import Filter
from perstack_storage._inspect.parameters import POSITION_MAX, Parameter, checked
from perstack_storage._inspect.run_tools import RunTools
from perstack_storage._inspect.run_usage import RunUsage
from perstack_storage._inspect.source import Source, Wanted
from perstack_storage._inspect.streams import Streams
from perstack_storage._inspect.usage import usage_of_job
from perstack_storage._version import __version__
from perstack_storage._views.differences import as_json, between

_VERSION = dumps({"version": __version__})
_TIME_MAX = 1 << 53
_STEP_MAX = 1 << 53


class Readers(NamedTuple):
    """What answers read from."""

    source: Source
    streams: Streams
    run_usage: RunUsage
    run_tools: RunTools


class Asked(NamedTuple):
    """A request, and its parameters by name."""

    source: Source
    readers: Readers
    request: Request
    values: dict[str, Any]


class Route(NamedTuple):
    """A route; `shape` names the schema of its answer in `openapi`."""

    path: str
    text: str
    shape: str
    answer: Callable[[Asked], Awaitable[Response]]
    parameters: tuple[Parameter, ...] = ()


# --- parameters --------------------------------------------------------------------------------------

_JOB = Parameter("job", "id", "id of the job")
_RUN = Parameter("run", "id", "id of the run")
_CHECKPOINT = Parameter("checkpoint", "id", "id of the checkpoint")
_POSITION = Parameter("position", "integer", "position of the record", 1, POSITION_MAX)
_LIMIT = Parameter("limit", "integer", "number of items at most", 1, limits.PAGE_MAX)
_CURSOR = Parameter("after", "cursor", "the `next` of the page before")
_ORDER = Parameter("order", "choice", "newest or oldest first", choices=("newest", "oldest"))
_OMIT = Parameter(
    "omit", "names", "fields that are left out, such as checkpoint.messages; by default what repeats"
    " the messages; an empty text leaves out none", high=limits.OMIT_MAX,
)  # fmt: skip
_TYPES = Parameter("types", "names", "only events of these types", high=limits.TYPES_MAX)
_OPS = Parameter(
    "ops", "names", "only what these operations stored; `types` without them means events only",
    high=limits.OPS_MAX,
)  # fmt: skip
_AS_OF = Parameter("asOf", "integer", "as it was at this position", 0, POSITION_MAX)
_FILTERS = (
    Parameter("contains", "text", "only whose id or expert contains it, in upper or lower case"),
    Parameter("status", "text", "only with this status"),
    Parameter("expert", "text", "only of this expert"),
    Parameter("since", "number", "only those that began then or later, in ms since 1970", 0, _TIME_MAX),
    Parameter("until", "number", "only those that began before", 0, _TIME_MAX),
    _ORDER,
)
_RECORDS = Parameter("limit", "integer", "number of records at most", 1, limits.RECORDS_MAX)
_AFTER = Parameter("after", "integer", "the position after which to go on", 0, POSITION_MAX)


def _filters(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "limit": values.get("limit", limits.PAGE_DEFAULT),
        "after": values.get("after"),
        "contains": values.get("contains"),
        "status": values.get("status"),
        "expertKey": values.get("expert"),
        "since": values.get("since"),
        "until": values.get("until"),
        "newestFirst": values.get("order", "newest") == "newest",
    }


# --- answers -----------------------------------------------------------------------------------------


async def _hello(asked: Asked) -> Response:
    said = await asked.source.value("hello", {})
    return json_answer(asked.request, b'{"inspector":%b,"daemon":%b}' % (_VERSION, said))


async def _stats(asked: Asked) -> Response:
    return json_answer(asked.request, await asked.source.value("stats", {}))


async def _jobs(asked: Asked) -> Response:
    arguments = {**_filters(asked.values), "jobId": asked.values.get("job")}
    return listing_answer(asked.request, await asked.source.listing("listJobs", arguments))


async def _job(asked: Asked) -> Response:
    return json_answer(asked.request, await asked.source.job(asked.values["job"], asked.values.get("asOf")))


async def _runs(asked: Asked) -> Response:
    arguments = {**_filters(asked.values), "jobId": asked.values.get("job")}
    return listing_answer(asked.request, await asked.source.listing("listRuns", arguments))


async def _events(asked: Asked) -> Response:
    values = asked.values
    arguments = {
        "jobId": values["job"],
        "runId": values["run"],
        "limit": values.get("limit", limits.PAGE_DEFAULT),
        "after": values.get("after"),
        "types": values.get("types"),
        "minStep": values.get("minStep"),
        "maxStep": values.get("maxStep"),
        "newestFirst": values.get("order", "oldest") == "newest",
        "omit": values.get("omit", list(slim.TIMELINE_OMIT)),
        "asOf": values.get("asOf"),
    }
    return listing_answer(asked.request, await asked.source.listing("getEventContents", arguments))


async def _checkpoints(asked: Asked) -> Response:
    values = asked.values
    arguments = {
        "jobId": values["job"],
        "limit": values.get("limit", limits.PAGE_DEFAULT),
        "after": values.get("after"),
        "omit": values.get("omit", ["messages"]),
        "asOf": values.get("asOf"),
    }
    return listing_answer(asked.request, await asked.source.listing("getCheckpointsByJobId", arguments))


async def _checkpoint(asked: Asked) -> Response:
    values = asked.values
    arguments = {"jobId": values["job"], "checkpointId": values["checkpoint"], "asOf": values.get("asOf")}
    return json_answer(asked.request, await asked.source.value("retrieveCheckpoint", arguments))


async def _diff(asked: Asked) -> Response:
    values = asked.values
    as_of = values.get("asOf")
    before = await asked.source.checkpoint(values["job"], values["from"], as_of)
    after = await asked.source.checkpoint(values.get("toJob", values["job"]), values["to"], as_of)
    return json_answer(asked.request, dumps(as_json(before, after, between(before, after))))


async def _usage(asked: Asked) -> Response:
    return json_answer(asked.request, dumps(await usage_of_job(asked.source, asked.values["job"])))


async def _run_usage(asked: Asked) -> Response:
    return listing_answer(asked.request, await asked.readers.run_usage.page(_filters(asked.values)))


async def _run_tools(asked: Asked) -> Response:
    failed = asked.values.get("only") == "failed"
    found = await asked.readers.run_tools.page(_filters(asked.values), failed=failed)
    return listing_answer(asked.request, found)


async def _record(asked: Asked) -> Response:
    return json_answer(asked.request, await asked.source.record(asked.values["position"]))


async def _records(asked: Asked) -> Response:
    values = asked.values
    if "run" in values and "job" not in values:
        raise GatewayError("BAD_REQUEST", "run needs job", "job")
    wanted = Wanted(values.get("job"), values.get("run"), values.get("types"), values.get("ops"))
    found = await asked.source.records(
        values.get("after", 0),
        values.get("limit", limits.RECORDS_DEFAULT),
        wanted,
        form=slim.whole if values.get("form") == "whole" else slim.record,
    )
    return records_answer(asked.request, found)


async def _export(asked: Asked) -> Response:
    return await export_job(asked.source, asked.values["job"])


async def _stream(asked: Asked) -> Response:
    values = asked.values
    if "run" in values and "job" not in values:
        raise GatewayError("BAD_REQUEST", "run needs job", "job")
    if asked.readers.streams.count >= limits.STREAMS_MAX:
        raise GatewayError("BUSY", f"there are {limits.STREAMS_MAX} streams already")
    after: int | None = values.get("after")
    last = asked.request.headers.get("last-event-id", "")
    if last:
        (given,) = checked([_AFTER], [("after", last)]).values()
        after = given
    types = frozenset(values["types"]) if "types" in values else None
    form = values.get("form", "slim")
    if form == "jobs" and ("job" in values or types is not None):
        raise GatewayError("BAD_REQUEST", "form=jobs takes neither job nor types", "form")
    wanted = Filter(values.get("job"), values.get("run"), types, form == "heads", form == "merged")
    streams = asked.readers.streams
    following = streams.of_changes() if form == "jobs" else streams.of_records(wanted.job)
    stream: AsyncIterator[bytes] = following.stream(after, wanted)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


ROUTES = (
    Route("/api/hello", "What daemon and inspector say of themselves", "Hello", _hello),
    Route("/api/stats", "The daemon's counters and gauges", "Object", _stats),
    Route(
        "/api/jobs", "Summaries of the jobs", "Page", _jobs,
        (Parameter("job", "id", "only this job"), _LIMIT, _CURSOR, *_FILTERS),
    ),
    Route(
        "/api/jobs/{job}", "A job; null where only its records are known", "Nullable", _job, (_JOB, _AS_OF)
    ),
    Route("/api/runs", "Summaries of all runs", "Page", _runs, (_LIMIT, _CURSOR, *_FILTERS)),
    Route(
        "/api/jobs/{job}/runs", "Summaries of the runs of a job", "Page", _runs,
        (_JOB, _LIMIT, _CURSOR, *_FILTERS),
    ),
    Route(
        "/api/jobs/{job}/runs/{run}/events", "The events of a run by time", "Page", _events,
        (
            _JOB, _RUN, _LIMIT, _CURSOR, _TYPES, _OMIT, _ORDER, _AS_OF,
            Parameter("minStep", "integer", "only events from this step on", 0, _STEP_MAX),
            Parameter("maxStep", "integer", "only events up to this step", 0, _STEP_MAX),
        ),
    ),
    Route(
        "/api/jobs/{job}/checkpoints", "The checkpoints of a job by step", "Page", _checkpoints,
        (_JOB, _LIMIT, _CURSOR, _OMIT, _AS_OF),
    ),
    Route(
        "/api/jobs/{job}/checkpoints/{checkpoint}", "A checkpoint", "Object", _checkpoint,
        (_JOB, _CHECKPOINT, _AS_OF),
    ),
    Route(
        "/api/jobs/{job}/diff", "What changed from one checkpoint to another", "Difference", _diff,
        (
            _JOB,
            Parameter("from", "id", "id of a checkpoint of the job", required=True),
            Parameter("to", "id", "id of the one that it is compared with", required=True),
            Parameter("toJob", "id", "the job of the latter, where it is another one"),
            _AS_OF,
        ),
    ),
    Route("/api/jobs/{job}/usage", "What a job used, by run, expert, model", "Usage", _usage, (_JOB,)),
    Route(
        "/api/usage", "What each run used itself, with its expert and model", "Page", _run_usage,
        (_LIMIT, _CURSOR, *_FILTERS),
    ),
    Route(
        "/api/tools", "The calls of tools of each run: how long, how large, which failed", "Page", _run_tools,
        (
            Parameter("limit", "integer", "number of runs at most", 1, limits.TOOL_PAGE_MAX),
            Parameter("only", "choice", "failed: only calls that failed", choices=("all", "failed")),
            _CURSOR, *_FILTERS,
        ),
    ),
    Route("/api/jobs/{job}/export", "A job as one HTML file", "Html", _export, (_JOB,)),
    Route("/api/records/{position}", "The record at a position", "Record", _record, (_POSITION,)),
    Route(
        "/api/records", "Records by position; empty pages before the end are possible", "Records", _records,
        (
            _AFTER, _RECORDS,
            Parameter("job", "id", "only records of this job"),
            Parameter("run", "id", "with `job`: only of this run"),
            _TYPES, _OPS,
            Parameter("form", "choice", "slim: without what repeats the messages", choices=("slim", "whole")),
        ),
    ),
    Route(
        "/api/stream", "Server-sent events of the records stored from now on, or after a position", "Stream",
        _stream,
        (
            _AFTER, _TYPES,
            Parameter("job", "id", "only records of this job"),
            Parameter("run", "id", "with `job`: only of this run"),
            Parameter(
                "form", "choice", "heads: no values; merged: several to a message; jobs: which changed",
                choices=("slim", "heads", "merged", "jobs"),
            ),
        ),
    ),
)  # fmt: skip
"""All of them take GET and HEAD."""
