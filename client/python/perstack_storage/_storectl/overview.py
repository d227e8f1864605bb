"""The commands `tree` and `usage`: the runs of a job, how they hang together, and what they cost."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from perstack_storage import Job
from perstack_storage._storectl import ids, runs
from perstack_storage._storectl.call import OK, Call, Missing
from perstack_storage._storectl.style import of_status
from perstack_storage._storectl.tables import Column, json_line
from perstack_storage._views import graph
from perstack_storage._views.cells import Span, cell
from perstack_storage._views.graph import Placed, Run, Usage, added, usage_of
from perstack_storage._views.units import number, span_of, when_s

_RUN_WIDTH = 6
_UNKNOWN = "unknown"

# --- tree --------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """A line of the tree."""

    name: str
    expert: str
    status: str
    steps: str
    tokens: str
    took: str
    started: str
    note: str


_TREE_COLUMNS = (
    Column(
        "run", lambda v: v.name, style=lambda v: "" if v.name.startswith(("├", "└", "│", " ")) else "bold"
    ),
    Column("expert", lambda v: v.expert),
    Column("status", lambda v: v.status, style=lambda v: of_status(v.status)),
    Column("steps", lambda v: v.steps, right=True, drop=1),
    Column("tokens", lambda v: v.tokens, right=True, drop=2),
    Column("took", lambda v: v.took, right=True, drop=3),
    Column("started", lambda v: v.started, drop=5, style=lambda _: "dim"),
    Column("note", lambda v: v.note, drop=4, style=lambda _: "dim"),
)


def tree(call: Call) -> int:
    """The runs of a job and their delegations."""
    job, found, value = _job(call)
    roots = graph.connect(found)
    placed = list(graph.walk(roots, found))
    if call.out.as_json:
        for one in placed:
            call.out.line(json_line(_as_json(one)))
        return OK
    wide = call.out.width is None
    names = {run.id: run.id for run in found} if wide else ids.shortest([r.id for r in found], _RUN_WIDTH)
    rows = [_head(job, value, found), *(_row(one, names) for one in placed)]
    call.out.listing(_TREE_COLUMNS, rows)
    return OK


def _job(call: Call) -> tuple[str, list[Run], Job | None]:
    """Id, runs and value of the job that is meant."""
    job = ids.job_id(call.client, call.given.job_id)
    found = runs.graph(call.client, job)
    value = call.client.retrieve_job(job)
    if not found and value is None:
        raise Missing(f"job not found: {job}")
    return job, found, value


def _head(job: str, value: Job | None, found: list[Run]) -> _Row:
    started = min((run.started for run in found if run.started is not None), default=None)
    ended = max((run.ended for run in found if run.ended is not None), default=None)
    took = "" if started is None or ended is None else span_of(ended - started)
    total = added(run.own for run in found if run.own is not None)
    expert = value["coordinatorExpertKey"] if value is not None else ""
    status = value["status"] if value is not None else ""
    steps = number(value["totalSteps"]) if value is not None else ""
    note = "" if value is not None else "its program stored no job"
    return _Row(job, expert, status, steps, number(total["totalTokens"]), took, when_s(started), note)


def _row(placed: Placed, names: dict[str, str]) -> _Row:
    run = placed.run
    above = "".join("   " if last else "│  " for last in placed.last[:-1])
    end = ("└" if placed.last[-1] else "├") + ("▶ " if run.continues else "─ ")
    first, last = run.first_step, run.last_step
    steps = "" if first is None else str(first) if first == last else f"{first}-{last}"
    took = "" if run.started is None or run.ended is None else span_of(run.ended - run.started)
    tokens = "" if run.own is None else number(run.own["totalTokens"])
    name = f"{above}{end}{names.get(run.id, run.id)}"
    return _Row(
        name, run.expert, run.status or _UNKNOWN, steps, tokens, took, when_s(run.started), _note(run, names)
    )


def _note(run: Run, names: dict[str, str]) -> str:
    notes = []
    if run.continues is not None:
        notes.append(f"continues {names.get(run.continues, run.continues)}")
    if run.delegated_by is not None and run.delegated_by not in names:
        notes.append(f"delegated by {run.delegated_by}, of which nothing is stored")
    if run.error:
        notes.append(run.error)
    return "; ".join(notes)


def _as_json(placed: Placed) -> dict[str, Any]:
    run = placed.run
    return {
        "run": run.id,
        "depth": len(placed.last) - 1,
        "expert": run.expert,
        "model": run.model or None,
        "status": run.status or None,
        "firstStep": run.first_step,
        "lastStep": run.last_step,
        "startedAt": run.started,
        "endedAt": run.ended,
        "events": run.events,
        "usage": run.own,
        "delegatedBy": run.delegated_by,
        "toolCallId": run.delegated_call or None,
        "continues": run.continues,
        "error": run.error or None,
    }


# --- usage -------------------------------------------------------------------------------------------

_USAGE_COLUMNS = (
    Column("input", lambda v: number(v[1]["inputTokens"]), right=True, drop=1),
    Column("cached", lambda v: number(v[1]["cachedInputTokens"]), right=True, drop=3),
    Column("output", lambda v: number(v[1]["outputTokens"]), right=True, drop=1),
    Column("reasoning", lambda v: number(v[1]["reasoningTokens"]), right=True, drop=2),
    Column("total", lambda v: number(v[1]["totalTokens"]), right=True),
)
_Part = tuple[str, Usage]


def usage(call: Call) -> int:
    """What a job used, by run, expert and model."""
    job, found, value = _job(call)
    graph.connect(found)
    known = [(run, run.own) for run in found if run.own is not None]
    total = added(own for _, own in known)
    parts = {
        "runs": [(run.id, own) for run, own in known],
        "experts": _by(known, lambda run: run.expert),
        "models": _by(known, lambda run: run.model),
    }
    if call.out.as_json:
        said = {name: dict(part) for name, part in parts.items()}
        call.out.details({"job": job, "total": total, **said})
    else:
        call.out.spans([Span(cell(job), "bold")])
        for (name, part), singular in zip(parts.items(), ("run", "expert", "model"), strict=True):
            if not part or (name == "models" and [key for key, _ in part] == [_UNKNOWN]):
                continue
            call.out.line("")
            columns = (Column(singular, lambda v: v[0]), *_USAGE_COLUMNS)
            call.out.listing(columns, [*part, ("TOTAL", total)] if name == "runs" else part)
    unknown = len(found) - len(known)
    if unknown:
        what = "a run has" if unknown == 1 else f"{unknown} runs have"
        call.out.notes.append(f"{what} no checkpoint, so what was used is not known")
    if value is not None and usage_of(value["usage"])["totalTokens"] != total["totalTokens"]:
        call.out.notes.append(f"the job itself says {number(value['usage'].get('totalTokens'))} tokens")
    return OK


def _by(known: Iterable[tuple[Run, Usage]], key: Callable[[Run], str]) -> list[_Part]:
    sums: dict[str, list[Usage]] = {}
    for run, own in known:
        sums.setdefault(key(run) or _UNKNOWN, []).append(own)
    return sorted(
        ((name, added(own)) for name, own in sums.items()), key=lambda part: -part[1]["totalTokens"]
    )
