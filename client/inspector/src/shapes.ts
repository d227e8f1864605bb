// What a job is made of: its runs, their steps, and what is drawn of them.

import { minus, objectIn, textIn, type Usage, type Value } from "./values"

/** An event, or the deltas of a stream together. */
export type Item = {
  type: string
  position: number
  at: number
  stored: number
  step: number
  value: Value
  cut: boolean
  /** Of a stream: its deltas with their positions and times, bytes of text, time of the last one. */
  deltas?: { position: number; at: number; text: string }[]
  bytes?: number
  until?: number
}

export type Bar = {
  kind: "generation" | "tool" | "wait"
  from: number
  to: number | null
  /** Of a generation: when its first token came. */
  first?: number
  label: string
  position: number
  step: number
  failed?: boolean
}

export type Mark = { kind: "checkpoint" | "retry" | "error"; at: number; position: number; label: string }

export type ToolCall = {
  id: string
  run: string
  step: number
  name: string
  skill: string
  args: unknown
  at: number
  position: number
  result?: Value
  resultAt?: number
  resultPosition?: number
  failed?: boolean
}

export type CheckpointRow = {
  id: string; run: string; step: number; status: string; position: number; stored: number; usage: Usage; context: number | null
}

/** What goes wrong: its name, and whether it is shown as an error or as a warning. */
export const KINDS = {
  error: ["error", "bad"], retry: ["retry", "warn"], tool: ["tool failed", "warn"], steps: ["max steps", "warn"],
} as const
export type Kind = keyof typeof KINDS

/** What a run ends with at its maximum of steps. */
export const STEPS_TEXT = "It took as many steps as it may, and did not complete."

export type Problem = { kind: Kind; text: string; at: number; position: number; run: string; step: number }

export type Step = {
  number: number
  from: number
  to: number
  items: Item[]
  calls: ToolCall[]
  reasoning: string
  result: string
  usage: Usage | null
  context: number | null
  generation: Bar | null
  generationPosition: number | null
  problems: Problem[]
}

export class Run {
  expert = ""
  model = ""
  status = ""
  from = Infinity
  to = -Infinity
  firstPosition = 0
  lastPosition = 0
  events = 0
  delegatedBy: string | null = null
  delegatedCall = ""
  continues: string | null = null
  begunWith: Usage | null = null
  reached: Usage | null = null
  context: number | null = null
  error = ""
  query = ""
  results = new Set<string>()
  delegated = new Set<string>()
  items: Item[] = []
  steps = new Map<number, Step>()
  bars: Bar[] = []
  marks: Mark[] = []
  checkpoints: CheckpointRow[] = []
  generation: Bar | null = null
  waiting: Bar | null = null
  stream: Item | null = null

  constructor(readonly id: string) {}

  /** What it used itself: what it reached without what it began with. */
  get own(): Usage | null {
    if (!this.reached) return null
    return this.begunWith ? minus(this.reached, this.begunWith) : this.reached
  }

  get ended(): boolean {
    return this.status !== "" && this.status !== "proceeding" && this.status !== "init" && this.status !== "running"
  }

  touch(position: number): void {
    this.firstPosition = this.firstPosition || position
    this.lastPosition = position
  }

  takeDelegation(checkpoint: Value): void {
    const by = objectIn(checkpoint, "delegatedBy")
    if (typeof by.runId === "string" && by.runId !== this.id) {
      this.delegatedBy = by.runId
      this.delegatedCall = textIn(by, "toolCallId")
    }
  }

  step(number: number, at: number): Step {
    let step = this.steps.get(number)
    if (!step) {
      step = {
        number, from: at, to: at, items: [], calls: [], reasoning: "", result: "", usage: null, context: null,
        generation: null, generationPosition: null, problems: [],
      }
      this.steps.set(number, step)
    }
    if (at < step.from) step.from = at
    if (at > step.to) step.to = at
    return step
  }
}

/** The text of a stream's deltas. */
export function joined(stream: Item | undefined): string {
  return stream?.deltas?.map(delta => delta.text).join("") ?? ""
}
