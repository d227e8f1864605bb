"""The shapes of stored values, for type checkers. Fields that are not named here are kept as well."""

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from perstack_storage._core.events import RunEvent as RunEvent  # noqa: PLC0414 - for others


class Usage(TypedDict):
    """Numbers of tokens."""

    inputTokens: float
    outputTokens: float
    reasoningTokens: float
    totalTokens: float
    cachedInputTokens: float


JobStatus = Literal["running", "completed", "stoppedByMaxSteps", "stoppedByInteractiveTool", "stoppedByError"]

CheckpointStatus = Literal[
    "init",
    "proceeding",
    "completed",
    "stoppedByInteractiveTool",
    "stoppedByDelegate",
    "stoppedByExceededMaxSteps",
    "stoppedByError",
]


class _JobBase(TypedDict):
    id: str
    coordinatorExpertKey: str
    totalSteps: int
    maxSteps: NotRequired[int]
    usage: Usage
    startedAt: float
    finishedAt: NotRequired[float]


class JobFields(_JobBase):
    """What a job must have to be stored: any status is taken. Times in milliseconds since 1970."""

    status: str


class Job(_JobBase):
    """A job as Perstack makes it; times in milliseconds since 1970. A newer one may have more statuses."""

    status: JobStatus


class ExpertRef(TypedDict):
    """Which expert; `key` looks like `name`, `name@1.0.0` or `@scope/name@1.0.0`."""

    key: str
    name: str
    version: str


class DelegationTarget(TypedDict):
    """An expert that a checkpoint delegates to."""

    expert: ExpertRef
    toolCallId: str
    toolName: str
    query: str


class Delegator(TypedDict):
    """The expert and run that delegated to the run of a checkpoint."""

    expert: ExpertRef
    toolCallId: str
    toolName: str
    checkpointId: str
    runId: str


class ToolCall(TypedDict):
    """A call of a tool that has no result yet."""

    id: str
    skillName: str
    toolName: str
    args: dict[str, Any]


class ToolResult(TypedDict):
    """The result of a tool call."""

    id: str
    skillName: str
    toolName: str
    result: list[dict[str, Any]]


class CheckpointError(TypedDict):
    """The error that a run stopped by."""

    name: str
    message: str
    statusCode: NotRequired[int]
    isRetryable: bool


class _CheckpointBase(TypedDict):
    id: str
    jobId: str
    runId: str
    stepNumber: int
    messages: list[dict[str, Any]]
    expert: ExpertRef
    delegateTo: NotRequired[list[DelegationTarget]]
    delegatedBy: NotRequired[Delegator]
    usage: Usage
    contextWindow: NotRequired[float]
    contextWindowUsage: NotRequired[float]
    pendingToolCalls: NotRequired[list[ToolCall]]
    partialToolResults: NotRequired[list[ToolResult]]
    metadata: NotRequired[dict[str, Any]]
    error: NotRequired[CheckpointError]
    retryCount: NotRequired[int]


class CheckpointFields(_CheckpointBase):
    """What a checkpoint must have to be stored: any status is taken."""

    status: str


class Checkpoint(_CheckpointBase):
    """The state of a run after a step, as Perstack makes it. A newer one may have more statuses."""

    status: CheckpointStatus


class EventMeta(TypedDict):
    """What `get_events_by_run` gives of an event; `timestamp` in milliseconds since 1970."""

    timestamp: float
    stepNumber: int
    type: str


class EventBase(TypedDict):
    """What all events have beside their type; `timestamp` in milliseconds since 1970."""

    id: str
    timestamp: float
    stepNumber: int
    expertKey: str
    jobId: str
    runId: str


class EventFields(EventBase):
    """What all events have; the rest depends on `type`. With it, an event of any type can be stored."""

    type: str


if not TYPE_CHECKING:
    RunEvent = EventFields  # a union takes 25 classes, which programs that run have no use for


class InteractiveToolCallResult(TypedDict):
    """What a person answered to an interactive tool."""

    toolCallId: str
    toolName: str
    skillName: str
    text: str


class RunInput(TypedDict, total=False):
    """What a run starts from."""

    text: str
    interactiveToolCallResult: InteractiveToolCallResult


class RunSetting(TypedDict):
    """The settings of a run; times in milliseconds. Keys of APIs stand in it, and the environment."""

    model: str
    providerConfig: dict[str, Any]
    jobId: str
    runId: str
    expertKey: str
    input: RunInput
    experts: dict[str, dict[str, Any]]
    reasoningBudget: NotRequired[str | float]
    maxSteps: NotRequired[int]
    maxRetries: int
    timeout: float
    startedAt: float
    updatedAt: float
    perstackApiBaseUrl: str
    perstackApiKey: NotRequired[str]
    perstackBaseSkillCommand: NotRequired[list[str]]
    env: dict[str, str]
    proxyUrl: NotRequired[str]
    verbose: NotRequired[bool]


class Record(TypedDict):
    """An entry of the journal as `read_all` and `follow` give it.

    `time` is the daemon's, in milliseconds since 1970. `epoch` names the start of the daemon that stored it,
    where the daemon knows: kept with the position, it shows later whether the history is still the same.
    `cursor` is the name with which `follow` was called, for `commit`.
    """

    position: int
    time: float
    op: str
    value: dict[str, Any]
    epoch: NotRequired[str]
    cursor: NotRequired[str]


class NamedCursor(TypedDict):
    """A cursor that the daemon keeps: `lag` is the count of positions after it.

    `idleSeconds` is the time since it was set last.
    """

    name: str
    position: int
    lag: int
    idleSeconds: int


class Deletion(TypedDict):
    """What `deletions` gives: without `runId` the whole job was deleted, up to `position`.

    `time` is the daemon's, in milliseconds since 1970. `erased`: its bytes are gone from the journal too.
    With `settingOnly` only settings of the run went: `redact_run_setting`.
    """

    position: int
    time: float
    jobId: str
    runId: NotRequired[str]
    why: str
    erased: bool
    settingOnly: NotRequired[bool]


class Size(TypedDict):
    """What `size_of` gives: counts, and bytes of the values, without versions that were replaced."""

    jobs: int
    runs: int
    runSettings: int
    checkpoints: int
    events: int
    bytes: int


class RecordCounts(TypedDict):
    """How many records a job or run has. Versions of one checkpoint and events that repeat count once."""

    jobs: NotRequired[int]
    runSettings: int
    checkpoints: int
    events: int


class ParentRun(TypedDict):
    """The run that delegated another one, and the checkpoint at which it did."""

    jobId: str
    runId: str
    checkpointId: str


class JobSummary(TypedDict):
    """What `list_jobs` gives of a job; times in whole milliseconds since 1970.

    `startedAt` is the first of its events' timestamps and its own; without any, when the daemon stored its
    first record. `usage` is that of the Job, else of the last checkpoint of a run that nobody delegated.
    """

    jobId: str
    startedAt: int
    lastEventAt: int | None
    lastPosition: int
    expertKey: str | None
    status: str | None
    end: str | None
    usage: Usage | None
    runs: int
    records: RecordCounts
    eventTypes: dict[str, int]


class RunSummary(TypedDict):
    """What `list_runs` gives of a run; times as in `JobSummary`, status and usage of the last checkpoint."""

    jobId: str
    runId: str
    startedAt: int
    lastEventAt: int | None
    firstPosition: int
    lastPosition: int
    expertKey: str | None
    status: str | None
    end: str | None
    usage: Usage | None
    parent: ParentRun | None
    records: RecordCounts
    eventTypes: dict[str, int]
