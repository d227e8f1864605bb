"""The events of a run, for type checkers: a union by `type`, as Perstack makes them. Nothing else imports it.

`if event["type"] == "streamReasoning"` tells a type checker that `event` has a `delta`.
"""

from typing import Any, Literal, NotRequired, TypedDict

from perstack_storage._core.shapes import (
    Checkpoint,
    CheckpointError,
    EventBase,
    ToolCall,
    ToolResult,
    Usage,
)

Message = dict[str, Any]


class Step(TypedDict):
    """What a run did in one step; times in milliseconds since 1970."""

    stepNumber: int
    inputMessages: NotRequired[list[Message]]
    newMessages: list[Message]
    toolCalls: NotRequired[list[ToolCall]]
    toolResults: NotRequired[list[ToolResult]]
    pendingToolCalls: NotRequired[list[ToolCall]]
    partialToolResults: NotRequired[list[ToolResult]]
    usage: Usage
    startedAt: float
    finishedAt: NotRequired[float]


class StartRunEvent(EventBase, TypedDict):
    """A run begins."""

    type: Literal["startRun"]
    initialCheckpoint: Checkpoint
    inputMessages: list[Message]


class StartGenerationEvent(EventBase, TypedDict):
    """The model is asked."""

    type: Literal["startGeneration"]
    messages: list[Message]


class RetryEvent(EventBase, TypedDict):
    """The model is asked again."""

    type: Literal["retry"]
    reason: str
    newMessages: list[Message]
    toolCalls: NotRequired[list[ToolCall]]
    toolResults: NotRequired[list[ToolResult]]
    usage: Usage


class CallToolsEvent(EventBase, TypedDict):
    """The model calls tools."""

    type: Literal["callTools"]
    newMessage: Message
    toolCalls: list[ToolCall]
    usage: Usage


class CallInteractiveToolEvent(EventBase, TypedDict):
    """The model calls a tool that a person answers."""

    type: Literal["callInteractiveTool"]
    newMessage: Message
    toolCall: ToolCall
    usage: Usage


class CallDelegateEvent(EventBase, TypedDict):
    """The model calls other experts."""

    type: Literal["callDelegate"]
    newMessage: Message
    toolCalls: list[ToolCall]
    usage: Usage


class ResolveToolResultsEvent(EventBase, TypedDict):
    """Tools have answered."""

    type: Literal["resolveToolResults"]
    toolResults: list[ToolResult]


class AttemptCompletionEvent(EventBase, TypedDict):
    """The model says that it is done."""

    type: Literal["attemptCompletion"]
    toolResult: ToolResult


class FinishToolCallEvent(EventBase, TypedDict):
    """A tool call is done."""

    type: Literal["finishToolCall"]
    newMessages: list[Message]


class ResumeToolCallsEvent(EventBase, TypedDict):
    """Tool calls go on that waited for a delegate or a person."""

    type: Literal["resumeToolCalls"]
    pendingToolCalls: list[ToolCall]
    partialToolResults: list[ToolResult]


class FinishAllToolCallsEvent(EventBase, TypedDict):
    """All tool calls of a step are done."""

    type: Literal["finishAllToolCalls"]
    newMessages: list[Message]


class ContinueToNextStepEvent(EventBase, TypedDict):
    """A step ends, and the next one begins."""

    type: Literal["continueToNextStep"]
    checkpoint: Checkpoint
    step: Step
    nextCheckpoint: Checkpoint


class StopRunByInteractiveToolEvent(EventBase, TypedDict):
    """The run waits for a person."""

    type: Literal["stopRunByInteractiveTool"]
    checkpoint: Checkpoint
    step: Step


class StopRunByDelegateEvent(EventBase, TypedDict):
    """The run waits for other experts."""

    type: Literal["stopRunByDelegate"]
    checkpoint: Checkpoint
    step: Step


class StopRunByExceededMaxStepsEvent(EventBase, TypedDict):
    """The run has used up its steps."""

    type: Literal["stopRunByExceededMaxSteps"]
    checkpoint: Checkpoint
    step: Step


class StopRunByErrorEvent(EventBase, TypedDict):
    """The run ends by an error."""

    type: Literal["stopRunByError"]
    checkpoint: Checkpoint
    step: Step
    error: CheckpointError


class CompleteRunEvent(EventBase, TypedDict):
    """The run is done."""

    type: Literal["completeRun"]
    checkpoint: Checkpoint
    step: Step
    text: str
    usage: Usage


class StartStreamingReasoningEvent(EventBase, TypedDict):
    """Reasoning begins to arrive."""

    type: Literal["startStreamingReasoning"]


class StreamReasoningEvent(EventBase, TypedDict):
    """A piece of reasoning."""

    type: Literal["streamReasoning"]
    delta: str


class CompleteStreamingReasoningEvent(EventBase, TypedDict):
    """All of the reasoning."""

    type: Literal["completeStreamingReasoning"]
    text: str


class StartStreamingRunResultEvent(EventBase, TypedDict):
    """The result begins to arrive."""

    type: Literal["startStreamingRunResult"]


class StreamRunResultEvent(EventBase, TypedDict):
    """A piece of the result."""

    type: Literal["streamRunResult"]
    delta: str


class CompleteStreamingRunResultEvent(EventBase, TypedDict):
    """All of the result."""

    type: Literal["completeStreamingRunResult"]
    text: str


RunEvent = (
    StartRunEvent
    | StartGenerationEvent
    | RetryEvent
    | CallToolsEvent
    | CallInteractiveToolEvent
    | CallDelegateEvent
    | ResolveToolResultsEvent
    | AttemptCompletionEvent
    | FinishToolCallEvent
    | ResumeToolCallsEvent
    | FinishAllToolCallsEvent
    | ContinueToNextStepEvent
    | StopRunByInteractiveToolEvent
    | StopRunByDelegateEvent
    | StopRunByExceededMaxStepsEvent
    | StopRunByErrorEvent
    | CompleteRunEvent
    | StartStreamingReasoningEvent
    | StreamReasoningEvent
    | CompleteStreamingReasoningEvent
    | StartStreamingRunResultEvent
    | StreamRunResultEvent
    | CompleteStreamingRunResultEvent
)
