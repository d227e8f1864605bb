"""Calls of tools, run by run, newest run first, over all jobs: which, how long, how large, which failed."""

import asyncio
from typing import Any

from perstack_storage._core.answers import page_of
from perstack_storage._core.errors import AnswerTooLarge
from perstack_storage._core.jsonio import dumps
from perstack_storage._inspect import limits
from perstack_storage._inspect.kept import Kept
from perstack_storage._inspect.slim import TIMELINE_OMIT
from perstack_storage._inspect.source import Listing, Source
from perstack_storage._views.wording import (
    cut,
    is_failed,
    object_of,
    objects_of,
    one_line,
    parts_text,
    results_of,
    text_in,
)

CALLS = frozenset({"callTools", "callInteractiveTool", "callDelegate"})
RESULTS = frozenset({"resolveToolResults", "attemptCompletion"})
_TYPES = sorted(CALLS | RESULTS)
_TYPES_COUNTED = 64  # of a run with more, some types are in no count
_EVENTS = 100
_ARGUMENTS_CHARS, _ERROR_CHARS = 160, 600


class RunTools:
    """Reads pages of runs that called tools. Those of a run are read once, until it has new records."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows: Kept[dict[str, Any]] = Kept(limits.TOOLS_KEPT_BYTES_MAX)
        self._room = asyncio.Semaphore(limits.TOOL_READS_MAX)

    async def page(self, arguments: dict[str, Any], *, failed: bool) -> Listing:
        """A row for each run of a page of `listRuns`; with `failed` only with the calls that failed."""
        page = await self._source.page("listRuns", arguments)
        rows = await asyncio.gather(*map(self._row, page))
        if failed:
            rows = [{**row, "calls": [one for one in row["calls"] if one["failed"]]} for row in rows]
        return Listing(dumps(rows), page.next, page.position)

    async def _row(self, run: Any) -> dict[str, Any]:
        if not _has_calls(run["eventTypes"]):
            return _row_of(run, [], is_cut=False)
        key = (run["jobId"], run["runId"], run["firstPosition"], run["lastPosition"])
        row = self._rows.get(key)
        if row is None:
            async with self._room:
                row = await self._read(run)
            self._rows.put(key, row, len(dumps(row)))
        return row

    async def _read(self, run: Any) -> dict[str, Any]:
        calls = Calls()
        arguments = {
            "jobId": run["jobId"], "runId": run["runId"], "types": _TYPES, "limit": _EVENTS,
            "omit": list(TIMELINE_OMIT),
        }  # fmt: skip
        after, seen = None, 0
        while seen < limits.TOOL_EVENTS_MAX:
            read = await self._source.read(
                "getEventContents", {**arguments, "after": after}, 0.0, limits.TOOL_BYTES_MAX
            )
            if isinstance(read.failure, AnswerTooLarge):
                if arguments["limit"] == 1:
                    break
                arguments["limit"] = 1  # one by one: what is too large alone ends the row
                continue
            page = page_of(read)
            for event in page:
                calls.take(event)
            seen += len(page)
            after = page.next
            if after is None:
                return _row_of(run, calls.rows, is_cut=False)
        return _row_of(run, calls.rows, is_cut=True)


def _has_calls(types: dict[str, int]) -> bool:
    return len(types) >= _TYPES_COUNTED or not CALLS.isdisjoint(types)


def _row_of(run: Any, calls: list[dict[str, Any]], *, is_cut: bool) -> dict[str, Any]:
    return {
        "jobId": run["jobId"], "runId": run["runId"], "expertKey": run["expertKey"],
        "startedAt": run["startedAt"], "cut": is_cut, "calls": calls,
    }  # fmt: skip


class Calls:
    """The calls of a run, each with its result, from its events in their order."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._by_id: dict[str, dict[str, Any]] = {}

    def take(self, event: Any) -> None:
        """Take an event of one of the types."""
        if event["type"] in RESULTS:
            for result in results_of(event):
                self._take_result(result, event)
            return
        for call in [*objects_of(event, "toolCalls"), object_of(event, "toolCall")]:
            if call:
                self._take_call(call, event)

    def _take_call(self, call: dict[str, Any], event: Any) -> None:
        id = _name(call, "id") or _name(call, "toolCallId")
        row = {
            "id": id, "name": _name(call, "toolName") or "?", "skill": _name(call, "skillName"),
            "step": event["stepNumber"], "at": event["timestamp"], "tookMs": None, "failed": False,
            "resultBytes": 0, "args": cut(one_line(text_in(call, "args")), _ARGUMENTS_CHARS), "error": None,
        }  # fmt: skip
        known = self._by_id.get(id)
        if known is not None and (known["step"], known["name"]) == (row["step"], row["name"]):
            return  # callTools and callDelegate both name it
        self.rows.append(row)
        self._by_id[id] = row

    def _take_result(self, result: dict[str, Any], event: Any) -> None:
        row = self._by_id.get(_name(result, "id"))
        if row is None:
            return
        parts = objects_of(result, "result")
        row["tookMs"] = event["timestamp"] - row["at"]
        row["resultBytes"] = sum(map(_size, parts)) + max(0, len(parts) - 1)
        if is_failed(result):
            row["failed"], row["error"] = True, cut(parts_text(parts), _ERROR_CHARS)


def _name(value: Any, key: str) -> str:
    return text_in(value, key)[: limits.NAME_CHARS_MAX]


def _size(part: dict[str, Any]) -> int:
    """Bytes of the text of a part, as the page shows it: of another part those of its type in brackets."""
    for name in ("text", "thinking"):
        found = part.get(name)
        if found is not None and found != "":
            text = found if isinstance(found, str) else dumps(found).decode(errors="replace")
            return len(text.encode(errors="replace"))
    return len(text_in(part, "type") or "part") + 2
