"""The command `diff`: what changed from one checkpoint to another."""

from collections.abc import Iterator
from typing import Any

from perstack_storage import CheckpointNotFound, Client
from perstack_storage._storectl import ids
from perstack_storage._storectl.call import OK, Call
from perstack_storage._storectl.output import Output
from perstack_storage._views import wording
from perstack_storage._views.cells import GAP, Span, cell, fitted
from perstack_storage._views.differences import Change, Difference, as_json, between
from perstack_storage._views.units import number

_NAMES = {
    "id": "checkpoint",
    "jobId": "job",
    "runId": "run",
    "stepNumber": "step",
    "expert.key": "expert",
    "contextWindowUsage": "context",
    "inputTokens": "input",
    "outputTokens": "output",
    "reasoningTokens": "reasoning",
    "cachedInputTokens": "cached",
    "totalTokens": "tokens",
}
_SPEAKERS = {
    "instructionMessage": "instruction",
    "userMessage": "user",
    "expertMessage": "expert",
    "toolMessage": "tool",
}
_NAME_WIDTH_MAX, _SPEAKER_WIDTH = 32, 11
_CALL = "toolCallPart"
_VALUE_MAX = 60
_PIPE_TEXT_MAX = 300


def diff(call: Call) -> int:
    """What changed between two checkpoints."""
    given = call.given
    before, after = (
        _checkpoint(call.client, given.job, text) for text in (given.old_checkpoint, given.new_checkpoint)
    )
    found = between(before, after)
    if call.out.as_json:
        call.out.details(as_json(before, after, found))
        return OK
    rows = list(_rows(before, found))
    width = min(max(len(name) for name, _ in rows), _NAME_WIDTH_MAX)
    for name, spans in rows:
        call.out.spans([Span(fitted(cell(name), width) + GAP, "dim"), *spans], cut=True)
    _print_messages(call.out, found)
    return OK


# --- which checkpoints -------------------------------------------------------------------------------


def _checkpoint(client: Client, given_job: str | None, text: str) -> Any:
    """The checkpoint that is meant: JOB/ID, or an ID of the job given, else of the newest, else of any."""
    job_text, slash, id_text = text.rpartition("/")
    if slash or given_job is not None:
        job = ids.job_id(client, job_text if slash else given_job)
        return client.retrieve_checkpoint(job, ids.checkpoint_id(client, job, id_text))
    for job in ids.job_ids(client):
        try:
            return client.retrieve_checkpoint(job, id_text)
        except CheckpointNotFound:
            continue
    newest = ids.job_id(client, None)
    return client.retrieve_checkpoint(newest, ids.checkpoint_id(client, newest, id_text))


# --- what is printed ---------------------------------------------------------------------------------


def _rows(before: Any, found: Difference) -> Iterator[tuple[str, list[Span]]]:
    fields = dict(found.fields)
    for name in ("id", "jobId"):  # say always which ones they are
        fields = {name: fields.pop(name, Change(before[name], before[name])), **fields}
    for name, change in fields.items():
        yield _NAMES.get(name, name), _change(_value(name, change.before), _value(name, change.after))
    for name, change in found.usage.items():
        grown = change.after - change.before
        spans = _change(number(change.before), number(change.after))
        yield _NAMES.get(name, name), [*spans, Span(f"{GAP}({grown:+,.0f})", "dim")]
    yield "messages", [Span(_counts(found))]


def _change(before: str, after: str) -> list[Span]:
    if before == after:
        return [Span(after)]
    if not before:
        return [Span(f"+ {wording.cut(after, _PIPE_TEXT_MAX)}", "green")]
    if not after:
        return [Span(f"- {wording.cut(before, _PIPE_TEXT_MAX)}", "red")]
    old, new = (wording.cut(text, _VALUE_MAX) for text in (before, after))
    return [Span(old, "red"), Span(" → "), Span(new, "green")]


def _value(name: str, value: Any) -> str:
    if name == "contextWindowUsage" and isinstance(value, int | float) and 0 <= value <= 1:
        return f"{value:.1%}"
    return wording.one_line(cell(value))


def _counts(found: Difference) -> str:
    messages = found.messages
    counts = [
        f"{len(items)} {name}"
        for items, name in (
            (messages.added, "added"),
            (messages.changed, "changed"),
            (messages.removed, "removed"),
        )
        if items
    ]
    if messages.moved:
        counts.append("in another order")
    totals = str(messages.after)
    if messages.before != messages.after:
        totals = f"{messages.before} → {totals}"
    return f"{totals}: {', '.join(counts) or 'the same'}"


def _print_messages(out: Output, found: Difference) -> None:
    for message in found.messages.removed:
        _print_message(out, "-", "red", message)
    for change in found.messages.changed:
        _print_message(out, "-", "red", change.before)
        _print_message(out, "+", "green", change.after)
    for message in found.messages.added:
        _print_message(out, "+", "green", message)


def _print_message(out: Output, sign: str, style: str, message: Any) -> None:
    type = wording.text_in(message, "type")
    text = wording.one_line(message_text(message))
    if out.width is None:
        text = wording.cut(text, _PIPE_TEXT_MAX)
    speaker = fitted(cell(_SPEAKERS.get(type, type)), _SPEAKER_WIDTH)
    out.spans([Span(f"{sign} {speaker}", style), Span(GAP + text)], cut=True)


def message_text(message: Any) -> str:
    """What a message says: its tool calls first, then texts, thoughts and results."""
    parts = sorted(wording.objects_of(message, "contents"), key=lambda part: part.get("type") != _CALL)
    return "; ".join(map(_part_text, parts))


def _part_text(part: dict[str, Any]) -> str:
    if part.get("type") == _CALL:
        return wording.call_text(part)
    if part.get("type") == "toolResultPart":
        inner = wording.parts_text(wording.objects_of(part, "contents"))
        return f"{wording.text_in(part, 'toolName')}: {inner}"
    return wording.parts_text([part])
