"""Runs that end in each way that Perstack has: completed, delegated, error, retry, steps used up, stopped."""

import itertools
from collections.abc import Iterator
from typing import Any

Call = tuple[str, dict[str, Any]]
Value = dict[str, Any]

_REASONING = (
    "The request asks for a short report on the release. I look at the changelog first, then at the open "
    "issues, and compare both with what the tests cover. ",
    "The file has three sections. The second one contradicts the first: one says that the limit is 64 KiB, "
    "the other 16 KiB. I check the source before I write anything. ",
    "The search found two candidates. Only one of them is called at run time, so the other can be removed. ",
)
QUERY = "Write a report on the release, and correct what is wrong in the docs."
_CHANGELOG = "# Changelog\n\n## 1.2.0\n\n- headers: 64 KiB\n"
_MAKE = "Error: exit status 2\nmake: *** [docs] Error 2"
_RESULT = (
    "The report is ready. The release has 14 changes, two of which need a migration. The limit of a header "
    "is 64 KiB; the page that says 16 KiB is wrong, and I have corrected it."
)


def usage(tokens: int) -> Value:
    """A usage of some tokens in all."""
    return {
        "inputTokens": tokens - tokens // 6, "outputTokens": tokens // 6, "reasoningTokens": tokens // 20,
        "totalTokens": tokens, "cachedInputTokens": tokens // 3,
    }  # fmt: skip


class Writer:
    """Writes the records of a job, one run after the other, with times that move on."""

    def __init__(self, job: str, start: int, expert: str = "@acme/report-writer@1.2.0") -> None:
        self.job, self.expert, self.now = job, expert, start
        self.calls: list[Call] = []
        self._ids = itertools.count()
        self._started = start
        self._steps = 0
        self._tokens = 0

    def set_job(self, status: str) -> None:
        """Store the job with a status."""
        value: Value = {
            "id": self.job, "coordinatorExpertKey": self.expert, "status": status, "totalSteps": self._steps,
            "startedAt": self._started, "maxSteps": 100, "usage": usage(self._tokens),
        }  # fmt: skip
        if status != "running":
            value["finishedAt"] = self.now
        self.calls.append(("storeJob", value))

    def run(self, run: str, expert: str | None = None, **checkpoint: Any) -> "RunWriter":
        """Begin a run; `checkpoint` is what its initial one has beyond the usual."""
        return RunWriter(self, run, expert or self.expert, checkpoint)

    def id(self, kind: str) -> str:
        """A new id."""
        return f"{self.job}-{kind}{next(self._ids)}"

    def used(self, tokens: int) -> None:
        """Count a step and its tokens for the job."""
        self._steps += 1
        self._tokens += tokens


class RunWriter:
    """Writes the records of a run."""

    def __init__(self, writer: Writer, run: str, expert: str, checkpoint: Value) -> None:
        self._writer, self.id, self.expert = writer, run, expert
        self._step = int(checkpoint.pop("stepNumber", 1))
        self._tokens = int(checkpoint.pop("tokens", 0))
        self._more = checkpoint
        self._messages: list[Value] = [
            _message("instructionMessage", "i", "You write reports about software. Use the tools."),
            _message("userMessage", "u", QUERY),
        ]
        first = self.checkpoint("init", messages=[])
        self.event("startRun", 12, initialCheckpoint=first, inputMessages=self._messages)

    def event(self, type: str, after_ms: int, **fields: Any) -> None:
        """An event some milliseconds after the one before."""
        writer = self._writer
        writer.now += after_ms
        value = {
            "type": type, "id": writer.id("e"), "expertKey": self.expert, "timestamp": writer.now,
            "jobId": writer.job, "runId": self.id, "stepNumber": self._step, **fields,
        }  # fmt: skip
        writer.calls.append(("storeEvent", value))

    def checkpoint(self, status: str, **fields: Any) -> Value:
        """A checkpoint of this moment, not stored."""
        name, _, version = self.expert.rpartition("@")
        return {
            "id": self._writer.id("c"), "jobId": self._writer.job, "runId": self.id, "status": status,
            "expert": {"key": self.expert, "name": name or self.expert, "version": version or "1.0.0"},
            "stepNumber": self._step, "messages": list(self._messages), "usage": usage(self._tokens),
            "contextWindow": 200_000, "contextWindowUsage": round(self._tokens / 200_000, 4),
            **self._more, **fields,
        }  # fmt: skip

    def generate(self, wait_ms: int = 420, deltas: int = 24) -> str:
        """A generation that streams its reasoning; returns it."""
        self.event("startGeneration", 20, messages=list(self._messages))
        self.event("startStreamingReasoning", wait_ms)
        text = _REASONING[self._step % len(_REASONING)]
        words = itertools.cycle(text.split(" "))
        said = [f"{next(words)} " for _ in range(deltas)]
        for delta in said:
            self.event("streamReasoning", 14, delta=delta)
        self.event("completeStreamingReasoning", 5, text="".join(said))
        return "".join(said)

    def call(self, tool: str, arguments: Value, type: str = "callTools") -> str:
        """A tool call; returns its id."""
        said = self.generate()
        id = self._writer.id("toolu")
        call = {"id": id, "skillName": "@perstack/base", "toolName": tool, "args": arguments}
        contents = [
            {"type": "thinkingPart", "thinking": said, "id": self._writer.id("p")},
            {"type": "toolCallPart", "toolCallId": id, "toolName": tool, "args": arguments, "id": f"{id}p"},
        ]
        message = {"type": "expertMessage", "id": self._writer.id("m"), "contents": contents}
        self._messages.append(message)
        self._tokens += 1900 + 260 * self._step
        self._writer.used(1900 + 260 * self._step)
        step_usage = usage(1900 + 260 * self._step)
        self.event(type, 18, newMessage=message, toolCalls=[call], usage=step_usage)
        return id

    def result(self, id: str, tool: str, text: str, took_ms: int, *, failed: bool = False) -> None:
        """The result of a tool."""
        part = {"type": "textPart", "text": text, "id": f"{id}r"}
        result: Value = {"id": id, "skillName": "@perstack/base", "toolName": tool, "result": [part]}
        if failed:
            result["isError"] = True
        self.event("resolveToolResults", took_ms, toolResults=[result])
        inner = {"type": "toolResultPart", "toolCallId": id, "toolName": tool, "contents": [part]}
        message = {"type": "toolMessage", "id": self._writer.id("m"), "contents": [inner]}
        self._messages.append(message)
        self.event("finishToolCall", 4, newMessages=[message])

    def step(
        self, tool: str, arguments: Value, text: str, took_ms: int = 260, *, failed: bool = False
    ) -> None:
        """A whole step: a generation, a tool call, its result, a checkpoint."""
        id = self.call(tool, arguments)
        self.result(id, tool, text, took_ms, failed=failed)
        self.proceed()

    def proceed(self) -> None:
        """The end of a step."""
        checkpoint = self.checkpoint("proceeding")
        self._writer.calls.append(("storeCheckpoint", checkpoint))
        self.event("continueToNextStep", 6, checkpoint=checkpoint)
        self._step += 1

    def stop(self, type: str, status: str, **fields: Any) -> None:
        """The end of the run."""
        checkpoint = self.checkpoint(status, **fields)
        self._writer.calls.append(("storeCheckpoint", checkpoint))
        more = {"error": fields["error"]} if "error" in fields else {}
        self.event(type, 10, checkpoint=checkpoint, **more)

    def complete(self) -> None:
        """A last generation, its result streamed, and the end."""
        id = self.call("attemptCompletion", {})
        tool_result = {"id": id, "skillName": "@perstack/base", "toolName": "attemptCompletion", "result": []}
        self.event("attemptCompletion", 30, toolResult=tool_result)
        self.event("startStreamingRunResult", 300)
        for word in _RESULT.split(" "):
            self.event("streamRunResult", 17, delta=f"{word} ")
        self.event("completeStreamingRunResult", 5, text=_RESULT)
        checkpoint = self.checkpoint("completed")
        self._writer.calls.append(("storeCheckpoint", checkpoint))
        self.event("completeRun", 12, checkpoint=checkpoint, text=_RESULT, usage=usage(1200))

    @property
    def step_number(self) -> int:
        """The step that it is in."""
        return self._step

    @property
    def tokens(self) -> int:
        """What it has used so far."""
        return self._tokens


def _message(type: str, id: str, text: str) -> Value:
    return {"type": type, "id": id, "contents": [{"type": "textPart", "text": text, "id": f"{id}p"}]}


def _look(run: RunWriter) -> None:
    run.step("readTextFile", {"path": "/workspace/CHANGELOG.md"}, _CHANGELOG)
    run.step("searchFiles", {"pattern": "16 KiB", "path": "/docs"}, "docs/limits.md:12: 16 KiB", 910)


def completed(job: str, start: int) -> list[Call]:
    """A job of one run, with a tool that failed on the way."""
    writer = Writer(job, start)
    writer.set_job("running")
    run = writer.run("run-1")
    _look(run)
    run.step("exec", {"command": "make docs"}, _MAKE, 1800, failed=True)
    run.step("writeTextFile", {"path": "/workspace/docs/limits.md", "text": "…"}, '{"ok":true}', 40)
    run.complete()
    writer.set_job("completed")
    return writer.calls


def delegated(job: str, start: int) -> list[Call]:
    """A job whose run delegates to two experts, and goes on with their results."""
    writer = Writer(job, start, "@acme/release-manager@2.0.0")
    writer.set_job("running")
    run = writer.run("run-1")
    _look(run)
    said = run.call("researcher", {"query": "What do other projects do?"}, "callDelegate")
    other = f"{said}-b"
    experts = ("@acme/researcher@1.0.0", "@acme/reviewer@1.0.0")
    targets: list[Value] = [
        {"expert": {"key": key, "name": key, "version": "1.0.0"}, "toolCallId": id, "toolName": key}
        for key, id in zip(experts, (said, other), strict=True)
    ]
    run.stop("stopRunByDelegate", "stoppedByDelegate", delegateTo=targets)
    began, ends, tokens = writer.now, [], run.tokens
    for number, (key, id) in enumerate(zip(experts, (said, other), strict=True)):
        writer.now = began + 60 + 35 * number
        by = {
            "expert": {"key": writer.expert, "name": "m", "version": "2"}, "runId": run.id, "toolCallId": id,
            "toolName": key, "checkpointId": "c",
        }  # fmt: skip
        child = writer.run(f"run-child-{number}", key, delegatedBy=by)
        _look(child)
        if number:
            child.step("think", {"thought": "compare"}, "{}", 1400)
        child.complete()
        ends.append(writer.now)
        tokens += child.tokens
    writer.now = max(ends) + 80
    results = [{"id": id, "toolName": "researcher", "result": []} for id in (said, other)]
    again = writer.run("run-2", partialToolResults=results, stepNumber=run.step_number + 1, tokens=tokens)
    again.step("writeTextFile", {"path": "/workspace/REPORT.md", "text": "…"}, '{"ok":true}')
    again.complete()
    writer.set_job("completed")
    return writer.calls


def failed(job: str, start: int) -> list[Call]:
    """A job that tries again once, then stops by an error."""
    writer = Writer(job, start, "@acme/importer@0.9.1")
    writer.set_job("running")
    run = writer.run("run-1")
    _look(run)
    run.event("startGeneration", 20, messages=[])
    run.event("retry", 2100, reason="The model's answer had no tool call.", usage=usage(900), newMessages=[])
    run.event("startGeneration", 900, messages=[])
    error = {"name": "AI_APICallError", "message": "Overloaded", "statusCode": 529, "isRetryable": True}
    run.stop("stopRunByError", "stoppedByError", error=error)
    writer.set_job("stoppedByError")
    return writer.calls


def exhausted(job: str, start: int) -> list[Call]:
    """A job that used up its steps."""
    writer = Writer(job, start, "@acme/crawler@3.1.0")
    writer.set_job("running")
    run = writer.run("run-1")
    for number in range(6):
        run.step("fetchPage", {"url": f"https://example.org/{number}"}, "<html>…</html>", 300 + 90 * number)
    run.stop("stopRunByExceededMaxSteps", "stoppedByExceededMaxSteps")
    writer.set_job("stoppedByMaxSteps")
    return writer.calls


def asking(job: str, start: int) -> list[Call]:
    """A job that waits for a person."""
    writer = Writer(job, start, "@acme/deployer@1.0.0")
    writer.set_job("running")
    run = writer.run("run-1")
    _look(run)
    run.call("askUser", {"question": "Deploy to production now?"}, "callInteractiveTool")
    run.stop("stopRunByInteractiveTool", "stoppedByInteractiveTool")
    writer.set_job("stoppedByInteractiveTool")
    return writer.calls


def crashed(job: str, start: int) -> list[Call]:
    """A job whose process died in the middle of a generation: nothing says so."""
    writer = Writer(job, start, "@acme/summarizer@1.0.0")
    writer.set_job("running")
    run = writer.run("run-1")
    _look(run)
    run.event("startGeneration", 20, messages=[])
    run.event("startStreamingReasoning", 380)
    for word in _REASONING[0].split(" ")[:9]:
        run.event("streamReasoning", 15, delta=f"{word} ")
    return writer.calls


def every(now: int) -> Iterator[tuple[str, list[Call]]]:
    """One job of each kind, by its name; the last one began last."""
    hour = 3_600_000
    for number, make in enumerate((exhausted, failed, asking, crashed, delegated, completed)):
        job = f"job-{make.__name__}"
        yield job, make(job, now - (6 - number) * hour // 2)
