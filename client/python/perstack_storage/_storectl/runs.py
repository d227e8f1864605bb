"""The runs of a job, found by whatever was stored of them, and the events of a run, page by page."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from perstack_storage import Client, EventFilters, Page, RunSummary
from perstack_storage._storectl import ids
from perstack_storage._storectl.call import Missing
from perstack_storage._views.graph import Run
from perstack_storage._views.settings import SETTING_OPS, setting_in
from perstack_storage._views.wording import text_in

_FIRST_PAGE, _PAGE, _WHOLE_PAGE = 16, 500, 128
"""Events at a time: few at first, so that the first line comes at once. A whole one may hold all messages."""
_REPEATED = (
    "messages",
    "newMessage",
    "step",
    "checkpoint.messages",
    "initialCheckpoint.messages",
    "nextCheckpoint",
)
"""Fields that repeat the messages: most of an event's bytes, and nothing that a line shows."""
_CHECKPOINTS, _RUNS = 500, 1000
_METAS = 10_000


def summaries(client: Client, job: str) -> list[RunSummary]:
    """What is known of the runs of a job of which anything is stored, in the order in which they began."""

    def fetch(limit: int, after: Any) -> Page[Any]:
        return client.list_runs(limit, after, job_id=job, newest_first=False)

    return [run for page in _pages(fetch, _RUNS) for run in page]


def run_ids(client: Client, job: str) -> list[str]:
    """The ids of these runs."""
    return [run["runId"] for run in summaries(client, job)]


def run_id(client: Client, job: str, given: str | None) -> str:
    """The id of the run of a job that is meant; of its only one where none is given.

    Raises:
        Missing: there is none, or several fit.
    """
    known = run_ids(client, job)
    if given is not None:
        return ids.resolved("run", given, known)
    if not known:
        raise Missing(f"job not found: {job}")
    if len(known) > 1:
        raise Missing(f"{job} has {len(known)} runs, name one of them:", ids.hints(known))
    return known[0]


class Which(NamedTuple):
    """Which events of a run are read, in which order, and whether `whole`, with all messages."""

    min_step: int | None = None
    max_step: int | None = None
    types: Sequence[str] | None = None
    newest_first: bool = False
    whole: bool = False


def events(client: Client, job: str, run: str, which: Which) -> Iterator[Any]:
    """The events of a run by time, read as they are taken."""
    filters: EventFilters = {"newest_first": which.newest_first}
    if which.min_step is not None:
        filters["min_step"] = which.min_step
    if which.types is not None:
        filters["types"] = which.types
    if not which.whole:
        filters["omit"] = _REPEATED
    limit, after = _FIRST_PAGE, None
    while True:
        page = client.get_event_contents(job, run, which.max_step, limit, after, **filters)
        yield from page
        after = page.next
        if after is None:
            return
        limit = min(limit * 2, _WHOLE_PAGE if which.whole else _PAGE)


def graph(client: Client, job: str) -> list[Run]:
    """The runs of a job, with what is known of each. Of checkpoints and events the messages are let go."""
    known = summaries(client, job)
    found = {summary["runId"]: Run(summary["runId"]) for summary in known}
    for run in found.values():
        for event in client.get_event_contents(job, run.id, limit=1, omit=(*_REPEATED, "inputMessages")):
            run.take_event(event)
        for page in _pages(lambda limit, after: client.get_events_by_run(job, run.id, limit, after), _METAS):  # noqa: B023
            for meta in page:
                run.take_meta(meta)

    def checkpoints(limit: int, after: Any) -> Page[Any]:
        return client.get_checkpoints_by_job_id(job, limit, after, omit=("messages",))

    for page in _pages(checkpoints, _CHECKPOINTS):
        for checkpoint in page:
            found.setdefault(checkpoint["runId"], Run(checkpoint["runId"])).take_checkpoint(checkpoint)
    for summary in known:
        if summary["records"]["runSettings"]:
            found[summary["runId"]].model = _model(client, summary)
    return list(found.values())


def _model(client: Client, summary: RunSummary) -> str:
    """The model in the setting of a run: the first that is stored, or what a redaction made of it."""
    job, run, after = summary["jobId"], summary["runId"], summary["firstPosition"] - 1
    for record in client.follow(after, job_id=job, run_id=run, ops=SETTING_OPS, idle_s=0):
        return text_in(setting_in(record), "model")
    return ""


def _pages(fetch: Callable[[int, Any], Page[Any]], limit: int) -> Iterator[Page[Any]]:
    after = None
    while True:
        page = fetch(limit, after)
        yield page
        after = page.next
        if after is None:
            return
