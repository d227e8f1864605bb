"""What each run used itself, newest first, over all jobs: for usage over time by run, expert and model."""

import asyncio
from typing import Any, NamedTuple

from perstack_storage._core.answers import value_of
from perstack_storage._core.errors import AnswerTooLarge, Refused
from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits
from perstack_storage._inspect.kept import Kept
from perstack_storage._inspect.slim import TIMELINE_OMIT
from perstack_storage._inspect.source import Listing, Source
from perstack_storage._views.graph import USAGE_FIELDS, Usage, usage_of
from perstack_storage._views.settings import SETTING_OPS, setting_in
from perstack_storage._views.wording import object_of, text_in

_OMIT = [*TIMELINE_OMIT, "inputMessages"]


class Start(NamedTuple):
    """What a run began with: the usage of the runs that it goes on for, and its model, if it has one."""

    usage: Usage
    model: str | None


class RunUsage:
    """Reads pages of runs with their usage. How a run began is read once, for a bounded number of runs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._starts: Kept[Start] = Kept(limits.RUN_STARTS_KEPT_MAX)
        self._room = asyncio.Semaphore(limits.RUN_READS_MAX)

    async def page(self, arguments: dict[str, Any]) -> Listing:
        """Runs as `listRuns` lists them, each with what it used without that of others in it."""
        page = await self._source.page("listRuns", arguments)
        rows = await asyncio.gather(*map(self._row, page))
        return Listing(dumps(rows), page.next, page.position)

    async def _row(self, run: Any) -> dict[str, Any]:
        start = await self._start(run)
        own = None
        if run["usage"] is not None:
            reached = usage_of(run["usage"])
            own = {name: reached[name] - start.usage[name] for name in USAGE_FIELDS}
        return {
            "jobId": run["jobId"], "runId": run["runId"], "expertKey": run["expertKey"],
            "model": start.model, "status": run["status"], "startedAt": run["startedAt"], "usage": own,
        }  # fmt: skip

    async def _start(self, run: Any) -> Start:
        has_setting, has_begun = run["records"]["runSettings"] > 0, "startRun" in run["eventTypes"]
        key = (run["jobId"], run["runId"], run["firstPosition"], has_setting, has_begun)
        start = self._starts.get(key)
        if start is None:
            async with self._room:
                usage = await self._begun_with(run) if has_begun else usage_of(None)
                start = Start(usage, await model_of(self._source, run) if has_setting else None)
            self._starts.put(key, start)
        return start

    async def _begun_with(self, run: Any) -> Usage:
        arguments = {
            "jobId": run["jobId"], "runId": run["runId"], "types": ["startRun"], "limit": 1, "omit": _OMIT,
        }  # fmt: skip
        for event in await self._source.page("getEventContents", arguments):
            return usage_of(object_of(event, "initialCheckpoint").get("usage"))
        return usage_of(None)


async def model_of(source: Source, run: Any) -> str | None:
    """The model in the setting of a run, mostly its first record; None where it is not found soon."""
    position = run["firstPosition"]
    record = await _value(source, "getEvent", {"position": position})
    if object_of(record).get("op") not in SETTING_OPS:
        wanted = {
            "after": position, "jobId": run["jobId"], "runId": run["runId"],
            "ops": list(SETTING_OPS), "limit": 1,
        }  # fmt: skip
        record = next(iter(await _value(source, "readAll", wanted) or []), None)
    if record is None:
        return None
    return text_in(object_of(setting_in(record)), "model")[: limits.NAME_CHARS_MAX] or None


async def _value(source: Source, op: str, arguments: dict[str, Any]) -> Any:
    """A value of bounded size; None where it is larger, or not there."""
    try:
        return value_of(await source.read(op, arguments, 0.0, limits.SETTING_BYTES_MAX))
    except AnswerTooLarge:
        return None
    except Refused as error:
        if error.code != "NOT_FOUND":
            raise
        return None
