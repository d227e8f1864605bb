// The events of a run: a union by `type`, as Perstack makes them.

import type { Checkpoint, Opaque, RunError, RunEventFields, ToolCall, ToolResult, Usage } from "./shapes.js"

/** What a run did in one step; times in milliseconds since 1970. */
export interface Step {
  stepNumber: number
  inputMessages?: Opaque[]
  newMessages: Opaque[]
  toolCalls?: ToolCall[]
  toolResults?: ToolResult[]
  pendingToolCalls?: ToolCall[]
  partialToolResults?: ToolResult[]
  usage: Usage
  startedAt: number
  finishedAt?: number
}

interface Called {
  newMessage: Opaque
  usage: Usage
}

interface Stopped {
  checkpoint: Checkpoint
  step: Step
}

/** What the events of each type hold beside the fields that all have. */
interface Payloads {
  startRun: { initialCheckpoint: Checkpoint; inputMessages: Opaque[] }
  startGeneration: { messages: Opaque[] }
  retry: { reason: string; newMessages: Opaque[]; toolCalls?: ToolCall[]; toolResults?: ToolResult[]; usage: Usage }
  callTools: Called & { toolCalls: ToolCall[] }
  callInteractiveTool: Called & { toolCall: ToolCall }
  callDelegate: Called & { toolCalls: ToolCall[] }
  resolveToolResults: { toolResults: ToolResult[] }
  attemptCompletion: { toolResult: ToolResult }
  finishToolCall: { newMessages: Opaque[] }
  resumeToolCalls: { pendingToolCalls: ToolCall[]; partialToolResults: ToolResult[] }
  finishAllToolCalls: { newMessages: Opaque[] }
  continueToNextStep: Stopped & { nextCheckpoint: Checkpoint }
  stopRunByInteractiveTool: Stopped
  stopRunByDelegate: Stopped
  stopRunByExceededMaxSteps: Stopped
  stopRunByError: Stopped & { error: RunError }
  completeRun: Stopped & { text: string; usage: Usage }
  startStreamingReasoning: object
  streamReasoning: { delta: string }
  completeStreamingReasoning: { text: string }
  startStreamingRunResult: object
  streamRunResult: { delta: string }
  completeStreamingRunResult: { text: string }
}

/** The types of events that Perstack has. */
export type EventType = keyof Payloads

/** An event of one type, such as `EventOf<"streamReasoning">`. */
export type EventOf<T extends EventType> = RunEventFields & { type: T } & Payloads[T]

/** An event: by its `type` it tells what else it holds. A newer Perstack may have more types: see `OtherEvent`. */
export type RunEvent = { [T in EventType]: EventOf<T> }[EventType]

/**
 * An event of any type, also one that is not known here: `getEventContents<RunEvent | OtherEvent>(…)` asks for both.
 * All of them can be stored.
 */
export type OtherEvent = RunEventFields & { [field: string]: unknown }
