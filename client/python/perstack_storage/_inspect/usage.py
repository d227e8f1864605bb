"""What a job used, by run, expert and model, as `perstack-storectl usage` counts it."""

from typing import Any

from perstack_storage._inspect.run_usage import model_of
from perstack_storage._inspect.slim import TIMELINE_OMIT
from perstack_storage._inspect.source import Source
from perstack_storage._views.graph import Run, added, connect

_OMIT = [*TIMELINE_OMIT, "inputMessages"]
_CHECKPOINTS, _METAS = 500, 10_000


async def usage_of_job(source: Source, job: str) -> dict[str, Any]:
    """Usage of each run without that of others in it, and sums.

    A run that goes on for others begins with their sum, which is not counted again.
    """
    runs = await _runs(source, job)
    connect(runs)
    rows = [_row(run) for run in runs]
    return {
        "jobId": job,
        "runs": rows,
        "experts": _sums(rows, "expertKey"),
        "models": _sums(rows, "model"),
        "total": added(row["usage"] for row in rows if row["usage"] is not None),
    }


def _row(run: Run) -> dict[str, Any]:
    return {
        "runId": run.id, "expertKey": run.expert, "model": run.model or None, "status": run.status or None,
        "delegatedBy": run.delegated_by, "continues": run.continues, "startedAt": run.started,
        "endedAt": run.ended, "usage": run.own,
    }  # fmt: skip


def _sums(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    keys = dict.fromkeys(row[name] for row in rows)
    groups = {key: [row for row in rows if row[name] == key] for key in keys}
    return [
        {
            name: key,
            "runs": len(group),
            "usage": added(row["usage"] for row in group if row["usage"] is not None),
        }
        for key, group in groups.items()
    ]


async def _runs(source: Source, job: str) -> list[Run]:
    known = await source.runs(job)
    found = {run["runId"]: Run(run["runId"]) for run in known}
    for run in found.values():
        arguments = {"jobId": job, "runId": run.id}
        for event in await source.page("getEventContents", {**arguments, "limit": 1, "omit": _OMIT}):
            run.take_event(event)
        async for meta in source.pages("getEventsByRun", arguments, _METAS):
            run.take_meta(meta)
    async for checkpoint in source.pages(
        "getCheckpointsByJobId", {"jobId": job, "omit": ["messages"]}, _CHECKPOINTS
    ):
        found.setdefault(checkpoint["runId"], Run(checkpoint["runId"])).take_checkpoint(checkpoint)
    for summary in known:
        if summary["records"]["runSettings"]:
            found[summary["runId"]].model = await model_of(source, summary) or ""
    return list(found.values())
