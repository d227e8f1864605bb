// The shapes of stored values. Fields that are not named here are kept as well, byte for byte.

/** Numbers of tokens. */
export interface Usage {
  inputTokens: number
  outputTokens: number
  reasoningTokens: number
  totalTokens: number
  cachedInputTokens: number
}

/**
 * A part of a value that only Perstack looks into, such as a message or an expert. It fits Perstack's own type of it,
 * whichever version that is of; `unknown` would not, when it is read.
 */
export type Opaque = any

export type JobStatus = "running" | "completed" | "stoppedByMaxSteps" | "stoppedByInteractiveTool" | "stoppedByError"

/** What a job must have to be stored; times in milliseconds since 1970. Any status is taken. */
export interface JobFields {
  id: string
  status: string
  coordinatorExpertKey: string
  totalSteps: number
  maxSteps?: number | undefined
  usage: Usage
  startedAt: number
  finishedAt?: number | undefined
}

/** A job as Perstack makes it. A newer Perstack may have more statuses. */
export interface Job extends JobFields {
  status: JobStatus
  maxSteps?: number
  finishedAt?: number
}

/** Which expert; `key` looks like `name`, `name@1.0.0` or `@scope/name@1.0.0`. */
export interface ExpertRef {
  key: string
  name: string
  version: string
}

/** A run that an expert asks another expert for. */
export interface DelegationTarget {
  expert: ExpertRef
  toolCallId: string
  toolName: string
  query: string
}

export interface ToolCall {
  id: string
  skillName: string
  toolName: string
  args: Record<string, unknown>
}

export interface ToolResult {
  id: string
  skillName: string
  toolName: string
  result: Opaque[]
}

/** Why a run stopped. */
export interface RunError {
  name: string
  message: string
  statusCode?: number
  isRetryable: boolean
}

export type CheckpointStatus =
  | "init"
  | "proceeding"
  | "completed"
  | "stoppedByInteractiveTool"
  | "stoppedByDelegate"
  | "stoppedByExceededMaxSteps"
  | "stoppedByError"

/** What a checkpoint must have to be stored. Any status is taken. */
export interface CheckpointFields {
  id: string
  jobId: string
  runId: string
  status: string
  stepNumber: number
  messages: unknown[]
  expert: ExpertRef
  delegateTo?: unknown
  delegatedBy?: unknown
  usage: Usage
  contextWindow?: number | undefined
  contextWindowUsage?: number | undefined
  pendingToolCalls?: unknown
  partialToolResults?: unknown
  metadata?: unknown
  error?: { name: string; message: string; statusCode?: number | undefined; isRetryable: boolean } | undefined
  retryCount?: number | undefined
}

/** The state of a run after a step, as Perstack makes it. A newer Perstack may have more statuses. */
export interface Checkpoint extends CheckpointFields {
  status: CheckpointStatus
  messages: Opaque[]
  delegateTo?: DelegationTarget[]
  delegatedBy?: { expert: ExpertRef; toolCallId: string; toolName: string; checkpointId: string; runId: string }
  contextWindow?: number
  contextWindowUsage?: number
  pendingToolCalls?: ToolCall[]
  partialToolResults?: ToolResult[]
  metadata?: { [field: string]: Opaque }
  error?: RunError
  retryCount?: number
}

/** What `getEventsByRun` gives of an event; `timestamp` in milliseconds since 1970. */
export interface EventMeta {
  timestamp: number
  stepNumber: number
  type: string
}

/** What all events have. With it any event can be stored, whatever its type. */
export interface RunEventFields extends EventMeta {
  id: string
  expertKey: string
  jobId: string
  runId: string
}

/** What a run setting must have to be stored; times in milliseconds. Keys of APIs stand in it, and the environment. */
export interface RunSettingFields {
  model: string
  providerConfig: object
  jobId: string
  runId: string
  expertKey: string
  input: object
  experts: object
  reasoningBudget?: string | number | undefined
  maxSteps?: number | undefined
  maxRetries: number
  timeout: number
  startedAt: number
  updatedAt: number
  perstackApiBaseUrl: string
  perstackApiKey?: string | undefined
  perstackBaseSkillCommand?: string[] | undefined
  env: Record<string, string>
  proxyUrl?: string | undefined
  verbose?: boolean | undefined
}

/** What a run was asked for. */
export interface RunInput {
  text?: string
  interactiveToolCallResult?: { toolCallId: string; toolName: string; skillName: string; text: string }
}

/** The setting of a run as it is read: where `reasoningBudget` or `maxSteps` was left out, it is "low" or 100. */
export interface RunSetting extends RunSettingFields {
  providerConfig: Opaque
  input: RunInput
  experts: Record<string, Opaque>
  reasoningBudget: "none" | "minimal" | "low" | "medium" | "high" | number
  maxSteps: number
  perstackApiKey?: string
  perstackBaseSkillCommand?: string[]
  proxyUrl?: string
  verbose?: boolean
}

/**
 * A record as `readAll` and `follow` give it; `time` is the daemon's, in milliseconds since 1970.
 *
 * `epoch` names the start of the daemon that stored it, where the daemon knows: kept with the position, it shows
 * later whether the history is still the same. `cursor` is the name with which `follow` was called, for `commit`.
 */
export interface StoredRecord {
  position: number
  time: number
  op: "storeJob" | "storeCheckpoint" | "storeEvent" | "storeRunSetting" | "deleteJob" | "deleteRun" | "redactRunSetting"
  value: { [field: string]: unknown }
  epoch?: string
  cursor?: string
}

/** A cursor that the daemon keeps: `lag` is the count of positions after it. */
export interface NamedCursor {
  name: string
  position: number
  lag: number
  /** Since it was set last. */
  idleSeconds: number
}

/** What `deletions` gives: without `runId` the whole job was deleted, up to `position`. */
export interface Deletion {
  position: number
  /** The daemon's, in milliseconds since 1970. */
  time: number
  jobId: string
  runId?: string
  why: string
  /** Its bytes are gone from the journal too. */
  erased: boolean
  /** Only settings of the run went: `redactRunSetting`. */
  settingOnly?: boolean
}

/** What `sizeOf` gives: counts, and bytes of the values, without versions that were replaced. */
export interface Size {
  jobs: number
  runs: number
  runSettings: number
  checkpoints: number
  events: number
  bytes: number
}

/** What `listJobs` and `listRuns` have in common; times in whole milliseconds since 1970. */
export interface Summary {
  jobId: string
  /** The first timestamp of its events, of a job also its own; without any, when its first record was stored. */
  startedAt: number
  lastEventAt: number | null
  lastPosition: number
  expertKey: string | null
  /** Of a run that of its last checkpoint; of a job its Job's, else that of a run that nobody delegated. */
  status: string | null
  /** Type of the last event that ends a run. */
  end: string | null
  /** From where `status` is; never to be added up. */
  usage: Usage | null
  eventTypes: { [type: string]: number }
}

export interface JobSummary extends Summary {
  /** Count of its runs. */
  runs: number
  records: { jobs: number; runSettings: number; checkpoints: number; events: number }
}

export interface RunSummary extends Summary {
  runId: string
  firstPosition: number
  /** The run that delegated it, and the checkpoint at which it did. */
  parent: { jobId: string; runId: string; checkpointId: string } | null
  records: { runSettings: number; checkpoints: number; events: number }
}

/** A listing, or a piece of it. */
export interface Page<T> {
  items: T[]
  /** What to give as `after` to go on after this piece; undefined where the listing is complete. */
  next: unknown
  /** Every record up to this position was seen. */
  position: number
  /** The position that it is as of, where `asOf` was asked for. */
  asOf?: number
}

/** What the daemon says of itself; more than is named here stands in `proto/wire.md`. */
export interface Hello {
  server: string
  version: string
  versions: number[]
  /** Absolute. */
  base: string
  /** Names the history: positions of another one mean nothing in this one. */
  store: string
  /** Of the newest record, where there is one. */
  epoch?: string
  /** What was added to version 1 of the protocol. */
  features?: string[]
  [field: string]: unknown
}
