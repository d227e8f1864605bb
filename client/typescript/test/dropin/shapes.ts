// The shapes that Perstack's packages exchange, as its core publishes them (December 2025), noted by hand: what an
// alias of its storage has to fit.

export interface Usage {
  inputTokens: number
  outputTokens: number
  reasoningTokens: number
  totalTokens: number
  cachedInputTokens: number
}

export interface Job {
  id: string
  status: "running" | "completed" | "stoppedByMaxSteps" | "stoppedByInteractiveTool" | "stoppedByError"
  coordinatorExpertKey: string
  totalSteps: number
  maxSteps?: number
  usage: Usage
  startedAt: number
  finishedAt?: number
}

interface Part {
  type: "textPart" | "imageUrlPart"
  id: string
}
interface InstructionMessage {
  type: "instructionMessage"
  id: string
  contents: Part[]
  cache?: boolean
}
interface UserMessage {
  type: "userMessage"
  id: string
  contents: Part[]
}
interface ExpertMessage {
  type: "expertMessage"
  id: string
  contents: Part[]
}
interface ToolMessage {
  type: "toolMessage"
  id: string
  contents: Part[]
}
type Message = InstructionMessage | UserMessage | ExpertMessage | ToolMessage

interface ToolCall {
  id: string
  skillName: string
  toolName: string
  args: Record<string, unknown>
}
interface ToolResult {
  id: string
  skillName: string
  toolName: string
  result: Part[]
}
interface Step {
  stepNumber: number
  inputMessages?: (InstructionMessage | UserMessage | ToolMessage)[]
  newMessages: Message[]
  toolCalls?: ToolCall[]
  toolResults?: ToolResult[]
  pendingToolCalls?: ToolCall[]
  partialToolResults?: ToolResult[]
  usage: Usage
  startedAt: number
  finishedAt?: number
}

interface ExpertOfRun {
  key: string
  name: string
  version: string
}
interface RunError {
  name: string
  message: string
  statusCode?: number
  isRetryable: boolean
}

export interface Checkpoint {
  id: string
  jobId: string
  runId: string
  status:
    | "init"
    | "proceeding"
    | "completed"
    | "stoppedByInteractiveTool"
    | "stoppedByDelegate"
    | "stoppedByExceededMaxSteps"
    | "stoppedByError"
  stepNumber: number
  messages: Message[]
  expert: ExpertOfRun
  delegateTo?: { expert: ExpertOfRun; toolCallId: string; toolName: string; query: string }[]
  delegatedBy?: { expert: ExpertOfRun; toolCallId: string; toolName: string; checkpointId: string; runId: string }
  usage: Usage
  contextWindow?: number
  contextWindowUsage?: number
  pendingToolCalls?: ToolCall[]
  partialToolResults?: ToolResult[]
  metadata?: { runtime?: "local" | "docker"; [key: string]: unknown }
  error?: RunError
  retryCount?: number
}

export interface RunSetting {
  model: string
  providerConfig: { providerName: "anthropic"; apiKey: string } | { providerName: "ollama"; baseUrl?: string }
  jobId: string
  runId: string
  expertKey: string
  input: {
    text?: string
    interactiveToolCallResult?: { toolCallId: string; toolName: string; skillName: string; text: string }
  }
  experts: Record<string, { key: string; name: string; version: string; instruction: string; delegates: string[] }>
  reasoningBudget: "none" | "minimal" | "low" | "medium" | "high" | number
  maxSteps: number
  maxRetries: number
  timeout: number
  startedAt: number
  updatedAt: number
  perstackApiBaseUrl: string
  perstackApiKey?: string
  perstackBaseSkillCommand?: string[]
  env: Record<string, string>
  proxyUrl?: string
  verbose?: boolean
}

interface EventPayloads {
  startRun: { initialCheckpoint: Checkpoint; inputMessages: (InstructionMessage | UserMessage | ToolMessage)[] }
  startGeneration: { messages: Message[] }
  retry: {
    reason: string
    newMessages: (UserMessage | ExpertMessage | ToolMessage)[]
    toolCalls?: ToolCall[]
    toolResults?: ToolResult[]
    usage: Usage
  }
  callTools: { newMessage: ExpertMessage; toolCalls: ToolCall[]; usage: Usage }
  callInteractiveTool: { newMessage: ExpertMessage; toolCall: ToolCall; usage: Usage }
  callDelegate: { newMessage: ExpertMessage; toolCalls: ToolCall[]; usage: Usage }
  resolveToolResults: { toolResults: ToolResult[] }
  attemptCompletion: { toolResult: ToolResult }
  finishToolCall: { newMessages: (UserMessage | ToolMessage)[] }
  resumeToolCalls: { pendingToolCalls: ToolCall[]; partialToolResults: ToolResult[] }
  finishAllToolCalls: { newMessages: (UserMessage | ToolMessage)[] }
  continueToNextStep: { checkpoint: Checkpoint; step: Step; nextCheckpoint: Checkpoint }
  stopRunByInteractiveTool: { checkpoint: Checkpoint; step: Step }
  stopRunByDelegate: { checkpoint: Checkpoint; step: Step }
  stopRunByExceededMaxSteps: { checkpoint: Checkpoint; step: Step }
  stopRunByError: { checkpoint: Checkpoint; step: Step; error: RunError }
  completeRun: { checkpoint: Checkpoint; step: Step; text: string; usage: Usage }
  startStreamingReasoning: object
  streamReasoning: { delta: string }
  completeStreamingReasoning: { text: string }
  startStreamingRunResult: object
  streamRunResult: { delta: string }
  completeStreamingRunResult: { text: string }
}

interface EventBase {
  id: string
  expertKey: string
  timestamp: number
  jobId: string
  runId: string
  stepNumber: number
}

export type RunEvent = {
  [K in keyof EventPayloads]: EventBase & { type: K } & EventPayloads[K]
}[keyof EventPayloads]

export interface EventMeta {
  timestamp: number
  stepNumber: number
  type: string
}

/** What the core asks of every storage. */
export interface Storage {
  storeCheckpoint(checkpoint: Checkpoint): Promise<void>
  retrieveCheckpoint(jobId: string, checkpointId: string): Promise<Checkpoint>
  getCheckpointsByJobId(jobId: string): Promise<Checkpoint[]>
  storeEvent(event: RunEvent): Promise<void>
  getEventsByRun(jobId: string, runId: string): Promise<EventMeta[]>
  getEventContents(jobId: string, runId: string, maxStep?: number): Promise<RunEvent[]>
  storeJob(job: Job): Promise<void>
  retrieveJob(jobId: string): Promise<Job | undefined>
  getAllJobs(): Promise<Job[]>
  storeRunSetting(setting: RunSetting): Promise<void>
  getAllRuns(): Promise<RunSetting[]>
}

/** What the runtime's `run` may be given. */
export interface RunOptions {
  retrieveCheckpoint?: (jobId: string, checkpointId: string) => Promise<Checkpoint>
  storeCheckpoint?: (checkpoint: Checkpoint) => Promise<void>
  storeEvent?: (event: RunEvent) => Promise<void>
  storeJob?: (job: Job) => void
  retrieveJob?: (jobId: string) => Job | undefined
  createJob?: (jobId: string, expertKey: string, maxSteps?: number) => Job
}

export interface FileSystem {
  existsSync: (path: string) => boolean
  mkdir: (path: string, options: { recursive: boolean }) => Promise<void>
  readFile: (path: string, encoding: BufferEncoding) => Promise<string>
  writeFile: (path: string, data: string, encoding: BufferEncoding) => Promise<void>
}
type RunDir = (jobId: string, runId: string) => string

/** The storage's package: every value that it exports. */
export interface StoragePackage {
  FileSystemStorage: new (config?: { basePath?: string }) => Storage
  createInitialJob: (jobId: string, expertKey: string, maxSteps?: number) => Job
  storeJob: (job: Job) => void
  retrieveJob: (jobId: string) => Job | undefined
  getAllJobs: () => Job[]
  getJobDir: (jobId: string) => string
  getJobsDir: () => string
  defaultStoreCheckpoint: (checkpoint: Checkpoint) => Promise<void>
  defaultRetrieveCheckpoint: (jobId: string, checkpointId: string) => Promise<Checkpoint>
  getCheckpointsByJobId: (jobId: string) => Checkpoint[]
  getCheckpointDir: (jobId: string) => string
  getCheckpointPath: (jobId: string, checkpointId: string) => string
  defaultStoreEvent: (event: RunEvent) => Promise<void>
  getEventsByRun: (jobId: string, runId: string) => EventMeta[]
  getEventContents: (jobId: string, runId: string, maxStepNumber?: number) => RunEvent[]
  storeRunSetting: (setting: RunSetting, fs?: FileSystem, getRunDir?: RunDir) => Promise<void>
  getAllRuns: () => RunSetting[]
  defaultGetRunDir: RunDir
  createDefaultFileSystem: () => Promise<FileSystem>
}
