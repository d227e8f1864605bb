"""The command `log`: what happened in a job, line by line."""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from perstack_storage import Job, RunSummary
from perstack_storage._storectl import ids, runs, tables
from perstack_storage._storectl.call import OK, Call
from perstack_storage._storectl.days import Days
from perstack_storage._storectl.folding import Item, folded, folded_back, merged, plain
from perstack_storage._storectl.log_summary import Summary
from perstack_storage._storectl.output import Output
from perstack_storage._storectl.selection import selection, with_context
from perstack_storage._storectl.style import RUN_STYLES, of_status
from perstack_storage._views import wording
from perstack_storage._views.cells import GAP, Span, cell, fitted
from perstack_storage._views.units import number
from perstack_storage._views.wording import tokens_text

_RUN_WIDTH, _RUN_WIDTH_MAX = 6, 26
_LABEL_WIDTH, _TYPE_WIDTH = 9, 26
_PIPE_TEXT_MAX = 300
_BACKWARDS = "eventFilters"  # of the features of a daemon


def log(call: Call) -> int:
    """The events of a job across its runs, in time order."""
    given, client, out = call.given, call.client, call.out
    job = ids.job_id(client, given.job_id)
    known = runs.summaries(client, job)
    if given.run is not None:
        wanted = ids.resolved("run", given.run, [run["runId"] for run in known])
        known = [run for run in known if run["runId"] == wanted]
    found = _found(call, job, known)
    if given.summary:
        summary = Summary(job)
        for item in found:
            if item is not None:
                summary.add(item)
        summary.print(out)
        return OK
    if out.as_json:
        for item in found:
            if item is not None:
                out.line(tables.json_line(item.event))
        return OK
    names = [run["runId"] for run in known]
    printer = _Printer(out, names, verbose=given.verbose)
    if out.width is not None:
        printer.print_head(job, client.retrieve_job(job))
    printer.print(found)
    return OK


def _found(call: Call, job: str, known: list[RunSummary]) -> Iterable[Item | None]:
    """The lines that are wanted. None stands where --context leaves some out."""
    given, client = call.given, call.client
    chosen = selection(given)
    back = given.last is not None and not given.context and _BACKWARDS in client.hello().get("features", ())
    which = runs.Which(newest_first=back, whole=call.out.as_json)
    if not given.context:  # what stands around a line may be of another step or type
        steps = chosen.steps
        which = which._replace(types=chosen.all_types)
        if steps is not None:
            which = which._replace(min_step=steps.first, max_step=steps.max_step)
    unfolded = given.verbose or given.summary or call.out.as_json
    as_items = plain if unfolded else folded_back if back else folded
    streams = [
        (
            float(end) + 1 if back else float(run["startedAt"]) - 1,
            as_items(runs.events(client, job, run["runId"], which)),
        )
        for run in known
        if (end := run["lastEventAt"]) is not None
    ]
    items = merged(streams[::-1] if back else streams, newest_first=back)
    found = with_context(items, chosen.takes, given.context)
    if back:
        return list(islice(found, given.last))[::-1]
    return found if given.last is None else deque(found, given.last)


class _Printer:
    """Lines of the log. A narrow terminal gets short ids and labels, and the day above its lines."""

    def __init__(self, out: Output, names: list[str], *, verbose: bool) -> None:
        self._out = out
        self._terminal = out.width is not None
        self._wide = out.wide
        self._cut = self._terminal and not verbose
        self._verbose = verbose
        shown = {name: name for name in names} if self._wide else ids.shortest(names, _RUN_WIDTH)
        self._runs = {name: cell(text) for name, text in shown.items()}
        widest = max(map(len, self._runs.values()), default=0)
        self._run_width = min(widest, _RUN_WIDTH_MAX)
        self._styles = {name: RUN_STYLES[n % len(RUN_STYLES)] for n, name in enumerate(names)}
        self._days = Days(out)

    def print_head(self, job: str, value: Job | None) -> None:
        """Print which job it is, and what became of it."""
        spans = [Span(cell(job), "bold")]
        if value is not None:
            spans += [
                Span(GAP + cell(value["status"]), of_status(value["status"])),
                Span(f"{GAP}{number(value['totalSteps'])} steps{GAP}"),
                Span(f"{tokens_text(value['usage'])}{GAP}{cell(value['coordinatorExpertKey'])}"),
            ]
        self._out.spans(spans, cut=True)

    def print(self, items: Iterable[Item | None]) -> None:
        """Print them as they come."""
        empty = True
        for item in items:
            empty = False
            if item is None:
                self._out.line("--")
                continue
            self._out.spans(self._line(item), cut=self._cut)
        if empty and self._terminal:  # else the job's line looks like an answer that was cut
            self._out.spans([Span("no such events", "dim")], cut=True)

    def _line(self, item: Item) -> list[Span]:
        event = item.event
        run, type = event["runId"], event["type"]
        style = wording.style_of(event)
        label, width = (type, _TYPE_WIDTH) if self._wide else (wording.label_of(type), _LABEL_WIDTH)
        return [
            Span(self._days.time(item.time) + GAP, "dim"),
            Span(fitted(self._runs.get(run, cell(run)), self._run_width) + GAP, self._styles.get(run, "")),
            Span(f"{event['stepNumber']!s:>3}{GAP}"),
            Span(fitted(cell(label), width) + GAP, style),
            Span(self._text(item), style if style in {"dim", "red", "bold"} else ""),
        ]

    def _text(self, item: Item) -> str:
        if self._verbose or self._terminal:
            return item.text
        return wording.cut(item.text, _PIPE_TEXT_MAX)
