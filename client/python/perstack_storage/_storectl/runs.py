"""The runs of a job, found by whatever was stored of them, and the events of a run, page by page."""

from collections.abc import Iterator
from typing import Any

from perstack_storage import Client
from perstack_storage._storectl import ids

_FIRST_PAGE, _PAGE = 16, 128
"""Events at a time: few at first, so that the first line comes at once. An event may hold all messages."""


def run_ids(client: Client, job: str) -> list[str]:
    """The ids of the runs of a job, in the order in which they were first stored."""
    found: dict[str, None] = {}
    for record in client.follow(job_id=job, idle_s=0):
        if record["op"] != "storeJob":
            found[record["value"]["runId"]] = None
    return list(found)


def run_id(client: Client, job: str, given: str) -> str:
    """The id of the run of a job that is meant.

    Raises:
        Missing: there is none, or several fit.
    """
    if client.get_events_by_run(job, given, limit=1):
        return given
    return ids.resolved("run", given, run_ids(client, job))


def events(client: Client, job: str, run: str, max_step: int | None = None) -> Iterator[Any]:
    """The events of a run by time, read as they are taken."""
    limit, after = _FIRST_PAGE, None
    while True:
        page = client.get_event_contents(job, run, max_step, limit, after)
        yield from page
        after = page.next
        if after is None:
            return
        limit = min(limit * 2, _PAGE)
