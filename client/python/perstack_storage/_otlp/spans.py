"""Spans of records: a job is a trace, a run invokes an agent, a step is a chat, a tool call too. No I/O."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perstack_storage._core.jsonio import dumps
from perstack_storage._otlp import semconv
from perstack_storage._views.graph import STATUS_OF_TYPE
from perstack_storage._views.wording import error_text, is_failed, object_of, objects_of, results_of, text_in

RUNS_MAX = 10_000
"""Runs that have begun and not ended; beyond it the one that is quiet for longest is given up."""
CONTENT_CHARS_MAX = 16 << 10
NAME_CHARS_MAX = 200
TYPES = (
    "startRun", "startGeneration", "callTools", "callInteractiveTool", "callDelegate", "resolveToolResults",
    "attemptCompletion", "retry", "completeStreamingReasoning", *STATUS_OF_TYPE,
)  # fmt: skip
"""Types of events that spans are made of; no deltas."""
_GENERATED = frozenset({"callTools", "callInteractiveTool", "callDelegate"})
INTERNAL, CLIENT = 1, 3


class Span(NamedTuple):
    """A span; times in milliseconds since 1970, ids in hex, `error` is empty where it went well."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start: float
    end: float
    attributes: dict[str, str | int]
    error: str = ""


def _id(size: int, *parts: object) -> str:
    text = "\0".join(map(str, parts)).encode(errors="surrogatepass")
    return hashlib.sha256(text).digest()[:size].hex()


@dataclass
class _Run:
    """A run that has begun."""

    first_position: int
    job: str
    id: str
    expert: str
    start: float
    parent: str = ""
    model: str = ""
    provider: str = ""
    said: str = ""
    generation: tuple[int, float] | None = None  # step and time
    reasoning: str = ""
    calls: dict[str, tuple[int, float, dict[str, Any]]] = field(default_factory=dict)


class SpanMaker:
    """Makes spans of records that come in the order of their positions."""

    def __init__(self, store: str, *, content: bool = False) -> None:
        self._store = store
        self._content = content
        self._runs: OrderedDict[tuple[str, str], _Run] = OrderedDict()
        self._models: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()
        self.given_up = 0

    def needed_from(self) -> int | None:
        """The first position that the spans of open runs are made of; None where none is open."""
        return min((run.first_position for run in self._runs.values()), default=None)

    def take(self, record: Any) -> Iterator[Span]:
        """The spans that end with a record."""
        value = record["value"]
        if record["op"] == "storeRunSetting":
            self._take_setting(value)
        elif record["op"] == "storeEvent":
            yield from self._take_event(record["position"], value)

    def _take_setting(self, value: Any) -> None:
        key = value["jobId"], value["runId"]
        provider = text_in(object_of(value, "providerConfig"), "providerName")
        self._models[key] = text_in(value, "model"), provider
        if len(self._models) > RUNS_MAX:
            self._models.popitem(last=False)
        if key in self._runs:
            self._runs[key].model, self._runs[key].provider = self._models[key]

    def _take_event(self, position: int, event: Any) -> Iterator[Span]:
        run = self._run_of(position, event)
        type, at = event["type"], float(event["timestamp"])
        if type == "startRun":
            self._start(run, event, at)
        elif type == "startGeneration":
            run.generation, run.reasoning = (int(event["stepNumber"]), at), ""
        elif type == "completeStreamingReasoning":
            run.reasoning = text_in(event, "text")
        elif type in _GENERATED:
            yield from self._generated(run, event, at)
            for call in objects_of(event, "toolCalls"):
                run.calls[text_in(call, "id")] = int(event["stepNumber"]), at, call
        elif type == "retry":
            yield from self._generated(run, event, at, text_in(event, "reason") or "retry")
        for result in results_of(event):
            if (called := run.calls.pop(text_in(result, "id"), None)) is not None:
                yield self._tool(run, called, result, at)
        if type in STATUS_OF_TYPE:
            yield from self._end(run, event, at)

    def _run_of(self, position: int, event: Any) -> _Run:
        key = event["jobId"], event["runId"]
        run = self._runs.get(key)
        if run is None:
            run = _Run(position, *key, event["expertKey"], float(event["timestamp"]))
            run.model, run.provider = self._models.get(key, ("", ""))
            self._runs[key] = run
            if len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)
                self.given_up += 1
        self._runs.move_to_end(key)
        return run

    def _start(self, run: _Run, event: Any, at: float) -> None:
        run.start = at
        by = text_in(object_of(event, "initialCheckpoint", "delegatedBy"), "runId")
        if by and by != run.id:
            run.parent = self._span_id(run.job, by)
        said = [one for one in objects_of(event, "inputMessages") if one.get("type") == "userMessage"]
        run.said = dumps(said).decode()[:CONTENT_CHARS_MAX] if said else ""

    def _generated(self, run: _Run, event: Any, at: float, error: str = "") -> Iterator[Span]:
        if run.generation is None:
            return
        (step, start), run.generation = run.generation, None
        usage = object_of(event, "usage")
        more: dict[str, str | int] = {semconv.MODEL: run.model, semconv.PROVIDER: run.provider}
        for name, key in ((semconv.INPUT_TOKENS, "inputTokens"), (semconv.OUTPUT_TOKENS, "outputTokens")):
            if isinstance(usage.get(key), int):
                more[name] = usage[key]
        if self._content:
            more[semconv.OUTPUT_MESSAGES] = run.reasoning[:CONTENT_CHARS_MAX]
        if error:
            more[semconv.ERROR_TYPE] = "retry"
        name = f"{semconv.CHAT} {run.model}".strip()
        yield self._span(run, (name, CLIENT, semconv.CHAT), (step, start, at), more, error)

    def _tool(self, run: _Run, called: tuple[int, float, dict[str, Any]], result: Any, at: float) -> Span:
        step, start, call = called
        tool = text_in(call, "toolName")[:NAME_CHARS_MAX] or "?"
        failed = is_failed(result)
        more: dict[str, str | int] = {
            semconv.TOOL_NAME: tool, semconv.TOOL_TYPE: "function", semconv.TOOL_CALL: text_in(call, "id"),
        }  # fmt: skip
        if failed:
            more[semconv.ERROR_TYPE] = "tool_error"
        if self._content:
            more[semconv.TOOL_ARGUMENTS] = dumps(call.get("args")).decode()[:CONTENT_CHARS_MAX]
            more[semconv.TOOL_RESULT] = dumps(result.get("result")).decode()[:CONTENT_CHARS_MAX]
        named = f"{semconv.EXECUTE_TOOL} {tool}", INTERNAL, semconv.EXECUTE_TOOL
        return self._span(run, named, (step, start, at), more, "the tool failed" if failed else "")

    def _end(self, run: _Run, event: Any, at: float) -> Iterator[Span]:
        status = STATUS_OF_TYPE[event["type"]]
        error = ""
        if event["type"] == "stopRunByError":
            found = object_of(event, "error") or object_of(event, "checkpoint", "error")
            error = error_text(found) if self._content else text_in(found, "name")
            error = error or "error"
        yield from self._generated(run, event, at, error)
        more: dict[str, str | int] = {semconv.STATUS: status, semconv.MODEL: run.model}
        if error:
            more[semconv.ERROR_TYPE] = error[:NAME_CHARS_MAX]
        if self._content:
            more |= {semconv.INPUT_MESSAGES: run.said, semconv.OUTPUT_MESSAGES: text_in(event, "text")}
        self._runs.pop((run.job, run.id), None)
        self._models.pop((run.job, run.id), None)
        span = self._span(run, (run.expert, INTERNAL, semconv.INVOKE_AGENT), (0, run.start, at), more, error)
        yield span._replace(
            id=self._span_id(run.job, run.id),
            parent=run.parent,
            name=f"{semconv.INVOKE_AGENT} {run.expert}",
        )

    def _span(
        self,
        run: _Run,
        named: tuple[str, int, str],
        when: tuple[int, float, float],
        more: dict[str, str | int],
        error: str,
    ) -> Span:
        """A span of a run: its name, kind and operation; its step, start and end."""
        (name, kind, operation), (step, start, end) = named, when
        values: dict[str, str | int] = {
            semconv.OPERATION: operation, semconv.CONVERSATION: run.job, semconv.RUN: run.id,
            semconv.AGENT_ID: run.expert, semconv.AGENT_NAME: run.expert.rpartition("@")[0] or run.expert,
        }  # fmt: skip
        if operation != semconv.INVOKE_AGENT:
            values[semconv.STEP] = step
        call = more.get(semconv.TOOL_CALL, "")
        own = self._span_id(run.job, run.id, step, operation, call, int(start))
        trace = _id(16, self._store, run.job)
        parent = self._span_id(run.job, run.id)
        return Span(trace, own, parent, name, kind, start, end, values | more, error)

    def _span_id(self, *parts: object) -> str:
        return _id(8, self._store, *parts)
