// The shapes of stored values. Fields that are not named here are kept as well, byte for byte.

/** Numbers of tokens. */
export interface Usage {
  inputTokens: number
  outputTokens: number
  reasoningTokens: number
  totalTokens: number
  cachedInputTokens: number
}

/** A job; times in milliseconds since 1970. */
export interface Job {
  id: string
  status: string
  coordinatorExpertKey: string
  totalSteps: number
  maxSteps?: number | undefined
  usage: Usage
  startedAt: number
  finishedAt?: number | undefined
}

/** Which expert; `key` looks like `name`, `name@1.0.0` or `@scope/name@1.0.0`. */
export interface ExpertRef {
  key: string
  name: string
  version: string
}

/** The state of a run after a step. */
export interface Checkpoint {
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

/** What `getEventsByRun` gives of an event; `timestamp` in milliseconds since 1970. */
export interface EventMeta {
  timestamp: number
  stepNumber: number
  type: string
}

/** What all events have. */
export interface RunEventFields extends EventMeta {
  id: string
  expertKey: string
  jobId: string
  runId: string
}

/** An event: the rest depends on `type`. */
export type RunEvent = RunEventFields & { [field: string]: unknown }

/** The settings of a run; times in milliseconds. Keys of APIs stand in it, and the environment. */
export interface RunSetting {
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

/**
 * A record as `readAll` and `follow` give it; `time` is the daemon's, in milliseconds since 1970.
 *
 * `epoch` names the start of the daemon that stored it, where the daemon knows: kept with the position, it shows
 * later whether the history is still the same.
 */
export interface StoredRecord {
  position: number
  time: number
  op: "storeJob" | "storeCheckpoint" | "storeEvent" | "storeRunSetting"
  value: { [field: string]: unknown }
  epoch?: string
}

/** A listing, or a piece of it. */
export interface Page<T> {
  items: T[]
  /** What to give as `after` to go on after this piece; undefined where the listing is complete. */
  next: unknown
  /** Every record up to this position was seen. */
  position: number
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
  [field: string]: unknown
}
