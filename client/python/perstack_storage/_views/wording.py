"""What an event says to a person: a label, a style, and a text in one line. No I/O.

The daemon checks of an event only what all events have. All else may be of any type, or not there.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from perstack_storage._core.jsonio import dumps
from perstack_storage._views.units import number

TEXT_MAX = 4000
"""Characters of a value that are looked at for a line."""
ARGUMENT_MAX = 60
_ERROR = "Error"


class Kind(NamedTuple):
    """How events of a type are shown: a label for narrow terminals, a style, the maker of the text."""

    label: str
    style: str
    text: Callable[[Any], str]


# --- access to what may be anything ------------------------------------------------------------------


def object_of(value: Any, *names: str) -> dict[str, Any]:
    """The object under these names, one in the other; an empty one where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def objects_of(value: Any, name: str) -> list[dict[str, Any]]:
    """The objects of the list under this name."""
    items = value.get(name) if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def text_in(value: Any, name: str) -> str:
    """The text under this name; JSON of what is no text; nothing where it is not there."""
    found = value.get(name) if isinstance(value, dict) else None
    if found is None:
        return ""
    return found[:TEXT_MAX] if isinstance(found, str) else dumps(found).decode()[:TEXT_MAX]


def one_line(text: str) -> str:
    """A text whose line breaks and runs of spaces are one space each."""
    return " ".join(text[:TEXT_MAX].split())


def cut(text: str, length: int) -> str:
    """A text of at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def parts_text(parts: list[dict[str, Any]]) -> str:
    """The text of the parts of a message or result; a part of another type is named."""
    return " ".join(
        text_in(part, "text") or text_in(part, "thinking") or f"({text_in(part, 'type') or 'part'})"
        for part in parts[:20]
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- texts -------------------------------------------------------------------------------------------


def call_text(call: dict[str, Any]) -> str:
    """A tool call as in a program: readTextFile(path="/data.txt"). Long arguments are cut."""
    name = text_in(call, "toolName") or "?"
    arguments = call.get("args")
    if not isinstance(arguments, dict):
        return f"{name}({cut(text_in(call, 'args'), ARGUMENT_MAX)})"
    return f"{name}({', '.join(f'{key}={_argument(value)}' for key, value in arguments.items())})"


def _argument(value: Any) -> str:
    if isinstance(value, str):
        return f'"{cut(one_line(value), ARGUMENT_MAX)}"'
    return cut(dumps(value).decode(), ARGUMENT_MAX)


def _calls(event: Any) -> str:
    return "; ".join(map(call_text, objects_of(event, "toolCalls")))


def _pending(event: Any) -> str:
    calls = objects_of(event, "pendingToolCalls") or objects_of(
        object_of(event, "checkpoint"), "pendingToolCalls"
    )
    return "; ".join(map(call_text, calls))


def results_of(event: Any) -> Iterator[dict[str, Any]]:
    """The tool results of an event."""
    yield from objects_of(event, "toolResults")
    if result := object_of(event, "toolResult"):
        yield result


def result_text(result: dict[str, Any]) -> str:
    """A tool's name and what it gave."""
    return f"{text_in(result, 'toolName') or '?'}: {parts_text(objects_of(result, 'result'))}"


def _results(event: Any) -> str:
    return "; ".join(map(result_text, results_of(event)))


def _messages(event: Any) -> str:
    if "messages" not in event:  # they were not read
        return ""
    return _counted(len(objects_of(event, "messages")), "message")


def _new_messages(event: Any) -> str:
    names = [
        text_in(part, "toolName")
        for message in objects_of(event, "newMessages")
        for part in objects_of(message, "contents")
        if "toolName" in part
    ]
    return (
        "with the result of " + ", ".join(names)
        if names
        else _counted(len(objects_of(event, "newMessages")), "message")
    )


def _start(event: Any) -> str:
    first = object_of(event, "initialCheckpoint")
    expert = text_in(event, "expertKey")
    if results := objects_of(first, "partialToolResults"):
        return f"{expert} goes on with {', '.join(text_in(result, 'toolName') for result in results)}"
    said = [
        parts_text(objects_of(message, "contents"))
        for message in objects_of(event, "inputMessages")
        if message.get("type") == "userMessage"
    ]
    by = text_in(object_of(first, "delegatedBy", "expert"), "key")
    head = f"{expert} for {by}" if by else expert
    return f"{head}: {said[-1]}" if said else head


def tokens_text(usage: Mapping[str, Any]) -> str:
    """Tokens of a usage."""
    return f"{number(usage.get('totalTokens', 0))} tokens"


def _state(checkpoint: dict[str, Any]) -> str:
    texts = [tokens_text(object_of(checkpoint, "usage"))]
    filled = checkpoint.get("contextWindowUsage")
    if isinstance(filled, int | float) and 0 <= filled <= 1:
        texts.append(f"context {filled:.1%}")
    return ", ".join(texts)


def _next_step(event: Any) -> str:
    return _state(object_of(event, "checkpoint"))


def _complete(event: Any) -> str:
    end = _state(object_of(event, "checkpoint"))
    said = text_in(event, "text")
    return f"{end}: {said}" if said else end


def _delegates(event: Any) -> str:
    targets = objects_of(object_of(event, "checkpoint"), "delegateTo")
    return "waits for " + ", ".join(text_in(object_of(target, "expert"), "key") for target in targets)


def _asks(event: Any) -> str:
    return f"waits for a person: {_pending(event)}"


def _max_steps(event: Any) -> str:
    return f"as many steps as allowed, {_next_step(event)}"


def error_text(error: dict[str, Any]) -> str:
    """Name, message and status of an error."""
    text = ": ".join(filter(None, (text_in(error, "name"), text_in(error, "message"))))
    more = [f"status {text_in(error, 'statusCode')}"] if "statusCode" in error else []
    if error.get("isRetryable") is True:
        more.append("may be tried again")
    return f"{text} ({', '.join(more)})" if more else text


def _error(event: Any) -> str:
    error = object_of(event, "error") or object_of(event, "checkpoint", "error")
    return error_text(error) or text_in(event, "error")


def _retry(event: Any) -> str:
    return text_in(event, "reason") or _error(event)


_ENVELOPE = frozenset({"type", "id", "expertKey", "timestamp", "jobId", "runId", "stepNumber"})
_BULKY = frozenset({"messages", "newMessages", "inputMessages", "checkpoint", "initialCheckpoint", "step"})


def _other(event: Any) -> str:
    fields = {key: value for key, value in event.items() if key not in _ENVELOPE and key not in _BULKY}
    return " ".join(f"{key}={cut(dumps(value).decode(), ARGUMENT_MAX)}" for key, value in fields.items())


def _text(event: Any) -> str:
    return text_in(event, "text")


def _delta(event: Any) -> str:
    return text_in(event, "delta")


def _nothing(_: Any) -> str:
    return ""


KINDS = {
    "startRun": Kind("start", "bold", _start),
    "startGeneration": Kind("generate", "dim", _messages),
    "startStreamingReasoning": Kind("reason…", "dim", _nothing),
    "streamReasoning": Kind("deltas", "dim", _delta),
    "completeStreamingReasoning": Kind("reasoning", "", _text),
    "startStreamingRunResult": Kind("result…", "dim", _nothing),
    "streamRunResult": Kind("deltas", "dim", _delta),
    "completeStreamingRunResult": Kind("result", "bold", _text),
    "callTools": Kind("call", "cyan", _calls),
    "callInteractiveTool": Kind("ask", "yellow", _calls),
    "callDelegate": Kind("delegate", "magenta", _calls),
    "resumeToolCalls": Kind("resume", "cyan", _pending),
    "resolveToolResults": Kind("tool", "green", _results),
    "attemptCompletion": Kind("finish", "green", _results),
    "finishToolCall": Kind("message", "dim", _new_messages),
    "finishAllToolCalls": Kind("messages", "dim", _new_messages),
    "continueToNextStep": Kind("next step", "dim", _next_step),
    "retry": Kind("retry", "yellow", _retry),
    "completeRun": Kind("completed", "bold", _complete),
    "stopRunByDelegate": Kind("stop", "magenta", _delegates),
    "stopRunByInteractiveTool": Kind("stop", "yellow", _asks),
    "stopRunByExceededMaxSteps": Kind("stop", "yellow", _max_steps),
    "stopRunByError": Kind("error", "red", _error),
}
"""By type. Other types are shown with their fields."""
_UNKNOWN = Kind("", "", _other)
DELTAS = frozenset({"streamReasoning", "streamRunResult"})
STREAM_STARTS = {"startStreamingReasoning": "streamReasoning", "startStreamingRunResult": "streamRunResult"}
_ERRORS = frozenset({"retry", "stopRunByError", "stopRunByExceededMaxSteps"})
_TOOLS = frozenset(
    {"callTools", "callInteractiveTool", "resumeToolCalls", "resolveToolResults", "attemptCompletion"}
)
_RESULTS = frozenset({"resolveToolResults", "attemptCompletion"})
_DELEGATIONS = frozenset({"callDelegate", "stopRunByDelegate", "finishAllToolCalls"})


def text_of(event: Any) -> str:
    """The text of an event in one line, cut to `TEXT_MAX` characters; not yet escaped."""
    return one_line(KINDS.get(event["type"], _UNKNOWN).text(event))


def label_of(type: str) -> str:
    """A type for narrow terminals."""
    return KINDS[type].label if type in KINDS else type


def style_of(event: Any) -> str:
    """The style of an event: that of its type, and red where a tool has failed."""
    failed = event["type"] in _RESULTS and is_error(event)
    return "red" if failed else KINDS.get(event["type"], _UNKNOWN).style


def is_error(event: Any) -> bool:
    """Whether an event tells of an error: of a run, a retry, a bound, or a tool."""
    return event["type"] in _ERRORS or (event["type"] in _RESULTS and any(map(is_failed, results_of(event))))


def is_failed(result: dict[str, Any]) -> bool:
    """Whether a tool's result is an error: it says so, or its text begins with the word."""
    return result.get("isError") is True or any(
        part.get("isError") is True or text_in(part, "text").startswith(_ERROR)
        for part in objects_of(result, "result")
    )


def is_of_tools(event: Any) -> bool:
    """Whether an event is a tool call or its result."""
    return event["type"] in _TOOLS


def is_of_delegations(event: Any) -> bool:
    """Whether an event belongs to a delegation: its call, wait, start, end, return."""
    if event["type"] == "startRun":
        first = object_of(event, "initialCheckpoint")
        return "delegatedBy" in first or bool(objects_of(first, "partialToolResults"))
    if event["type"] == "completeRun":
        return "delegatedBy" in object_of(event, "checkpoint")
    return event["type"] in _DELEGATIONS


TYPES_OF_KIND: dict[Callable[[Any], bool], frozenset[str]] = {
    is_error: _ERRORS | _RESULTS,
    is_of_tools: _TOOLS,
    is_of_delegations: _DELEGATIONS | {"startRun", "completeRun"},
}
"""The types that events of a kind may have."""
