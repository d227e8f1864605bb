"""The types of events that Perstack has. No I/O.

Events of any type can be stored; a setting that names a type is compared with these.
"""

DELTAS = ("streamReasoning", "streamRunResult")
"""Pieces of streamed text: most events, a few bytes each; a completing event holds the whole text."""

EVENT_TYPES = (
    "startRun",
    "startGeneration",
    "retry",
    "callTools",
    "callInteractiveTool",
    "callDelegate",
    "resolveToolResults",
    "attemptCompletion",
    "finishToolCall",
    "resumeToolCalls",
    "finishAllToolCalls",
    "continueToNextStep",
    "stopRunByInteractiveTool",
    "stopRunByDelegate",
    "stopRunByExceededMaxSteps",
    "stopRunByError",
    "completeRun",
    "startStreamingReasoning",
    "streamReasoning",
    "completeStreamingReasoning",
    "startStreamingRunResult",
    "streamRunResult",
    "completeStreamingRunResult",
)
