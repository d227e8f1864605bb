"""The counts of a log: events by type and run, tools, errors."""

from collections import Counter
from typing import Any

from perstack_storage._storectl.folding import Item
from perstack_storage._storectl.output import Output
from perstack_storage._views import wording
from perstack_storage._views.cells import Span, cell
from perstack_storage._views.units import number, span_of, when

_ERRORS_MAX = 20


class Summary:
    """Counts what it is given, one item after the other; holds no events."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._types: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()
        self._failed: Counter[str] = Counter()
        self._errors: list[dict[str, Any]] = []
        self._error_count = 0
        self._first: float | None = None
        self._last = 0.0

    def add(self, item: Item) -> None:
        """Count an item."""
        event = item.event
        count = max(item.deltas, 1)
        self._types[event["type"]] += count
        self._runs[event["runId"]] += count
        if self._first is None:
            self._first = item.time
        self._last = max(self._last, item.time, float(item.until))
        for call in wording.objects_of(event, "toolCalls"):
            id = (event["runId"], wording.text_in(call, "id"))
            if id not in self._seen:  # a delegation is first an event of calls
                self._seen.add(id)
                self._calls[wording.text_in(call, "toolName")] += 1
        for result in filter(wording.is_failed, wording.results_of(event)):
            self._failed[wording.text_in(result, "toolName")] += 1
        if wording.is_error(event):
            self._error_count += 1
            if len(self._errors) < _ERRORS_MAX:
                said = {"timestamp": event["timestamp"], "runId": event["runId"], "text": item.text}
                self._errors.append(said)

    def print(self, out: Output) -> None:
        """As lines, or as one object."""
        counts = {
            "job": self._job,
            "events": self._types.total(),
            "from": self._first,
            "until": None if self._first is None else self._last,
            "runs": dict(self._runs),
            "types": dict(self._types.most_common()),
            "toolCalls": dict(self._calls.most_common()),
            "failedTools": dict(self._failed.most_common()),
            "errors": self._error_count,
            "firstErrors": self._errors,
        }
        if out.as_json:
            out.details(counts)
            return
        out.spans([Span(cell(self._job), "bold")])
        took = (
            ""
            if self._first is None
            else f" in {span_of(self._last - self._first)}, from {when(self._first)}"
        )
        runs = "1 run" if len(self._runs) == 1 else f"{len(self._runs)} runs"
        out.line(f"{number(self._types.total())} events of {runs}{took}", cut=True)
        self._section(out, "EVENTS", self._types.most_common())
        self._section(out, "RUNS", self._runs.items())
        self._section(out, "TOOL CALLS", self._calls.most_common())
        self._section(out, "FAILED TOOLS", self._failed.most_common())
        if self._errors:
            out.line("")
            out.spans([Span(f"ERRORS ({self._error_count})", "bold")])
        for error in self._errors:
            out.spans([Span(f"  {when(error['timestamp'])}  ", "dim"), Span(error["text"], "red")], cut=True)

    def _section(self, out: Output, title: str, counts: Any) -> None:
        rows = [(number(count), cell(name)) for name, count in counts]
        if not rows:
            return
        width = max(len(count) for count, _ in rows)
        out.line("")
        out.spans([Span(title, "bold")])
        for count, name in rows:
            out.spans([Span(f"  {count:>{width}}  "), Span(name)], cut=True)
