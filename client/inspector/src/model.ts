// A job, made of its records one by one: what is stored is a history, and so the page can show any moment
// of it, and go on live from where it is.

import type { Record } from "./data"
import { byteLength } from "./format"
import {
  added, errorText, isFailed, minus, numberIn, objectIn, objectsIn, partsText, table, textIn, usageIn, type Usage, type Value,
} from "./values"

export const DELTAS = table<string>({
  streamReasoning: "Reasoning", streamRunResult: "Result",
})
const STREAM_STARTS = table<string>({
  startStreamingReasoning: "streamReasoning", startStreamingRunResult: "streamRunResult",
})
const STREAM_ENDS = table<string>({
  completeStreamingReasoning: "streamReasoning", completeStreamingRunResult: "streamRunResult",
})
const STATUS_OF = table<string>({
  completeRun: "completed",
  stopRunByDelegate: "stoppedByDelegate",
  stopRunByInteractiveTool: "stoppedByInteractiveTool",
  stopRunByExceededMaxSteps: "stoppedByExceededMaxSteps",
  stopRunByError: "stoppedByError",
})
const GENERATION_ENDS = new Set([
  "callTools", "callDelegate", "callInteractiveTool", "attemptCompletion", "retry", "completeRun", "startGeneration",
  ...Object.keys(STATUS_OF),
])

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

export type Problem = { kind: string; text: string; at: number; position: number; run: string; step: number }

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

export class Job {
  value: Value | null = null
  runs = new Map<string, Run>()
  calls: ToolCall[] = []
  problems: Problem[] = []
  checkpoints: CheckpointRow[] = []
  position = 0
  records = 0
  deleted = false
  from = Infinity
  to = -Infinity
  private callsById = new Map<string, ToolCall>()

  constructor(readonly id: string) {}

  apply(record: Record): void {
    if (record.position <= this.position) return
    this.position = record.position
    this.records++
    const { value } = record
    if (record.op === "storeJob") this.value = value
    else if (record.op === "storeCheckpoint") this.takeCheckpoint(record)
    else if (record.op === "storeRunSetting") this.run(textIn(value, "runId")).model = textIn(value, "model")
    else if (record.op === "storeEvent") this.takeEvent(record)
    else if (record.op === "deleteJob") this.deleted = true
    else if (record.op === "deleteRun") this.runs.delete(textIn(value, "runId"))
  }

  run(id: string): Run {
    let run = this.runs.get(id)
    if (!run) this.runs.set(id, (run = new Run(id)))
    return run
  }

  private takeCheckpoint(record: Record): void {
    const { value } = record
    const run = this.run(textIn(value, "runId"))
    touch(run, record.position)
    const usage = usageIn(value.usage)
    const context = typeof value.contextWindowUsage === "number" ? value.contextWindowUsage : null
    const row: CheckpointRow = {
      id: textIn(value, "id"), run: run.id, step: numberIn(value, "stepNumber"), status: textIn(value, "status"),
      position: record.position, stored: record.time, usage, context,
    }
    const replaced = this.checkpoints.findIndex(one => one.id === row.id)
    if (replaced < 0) this.checkpoints.push(row)
    else this.checkpoints[replaced] = row
    run.checkpoints = run.checkpoints.filter(one => one.id !== row.id)
    run.checkpoints.push(row)
    run.status = row.status
    run.reached = usage
    if (context !== null) run.context = context
    run.expert = textIn(objectIn(value, "expert"), "key") || run.expert
    this.takeDelegation(run, value)
    for (const target of objectsIn(value, "delegateTo")) run.delegated.add(textIn(target, "toolCallId"))
    const error = errorText(objectIn(value, "error"))
    if (error) run.error = error
    const step = run.step(row.step, run.to > 0 ? run.to : record.time)
    step.context = context
    if (run.to > 0) {
      run.marks.push({ kind: "checkpoint", at: run.to, position: record.position, label: `checkpoint of step ${row.step}: ${row.status}` })
    }
  }

  private takeDelegation(run: Run, checkpoint: Value): void {
    const by = objectIn(checkpoint, "delegatedBy")
    if (typeof by.runId === "string" && by.runId !== run.id) {
      run.delegatedBy = by.runId
      run.delegatedCall = textIn(by, "toolCallId")
    }
  }

  private takeEvent(record: Record): void {
    const { value } = record
    const type = textIn(value, "type")
    const run = this.run(textIn(value, "runId"))
    const at = numberIn(value, "timestamp")
    const number = numberIn(value, "stepNumber")
    touch(run, record.position)
    run.events++
    run.expert = run.expert || textIn(value, "expertKey")
    if (at < run.from) run.from = at
    if (at > run.to) run.to = at
    if (at < this.from) this.from = at
    if (at > this.to) this.to = at
    const step = run.step(number, at)
    if (type in DELTAS) {
      this.takeDelta(run, step, record, type, at, number)
      return
    }
    const item: Item = {
      type, position: record.position, at, stored: record.time, step: number, value, cut: record.cut === true,
    }
    run.items.push(item)
    step.items.push(item)
    run.stream = type in STREAM_STARTS ? item : null
    if (type in STREAM_STARTS && run.generation && run.generation.first === undefined) run.generation.first = at
    if (run.generation && (GENERATION_ENDS.has(type) || type === "completeStreamingRunResult")) {
      run.generation.to = at
      run.generation = null
    }
    this.takeType(run, step, item, type)
  }

  private takeDelta(run: Run, step: Step, record: Record, type: string, at: number, number: number): void {
    const delta = typeof record.value.delta === "string" ? record.value.delta : ""
    let stream = run.stream
    const opens = stream && !stream.deltas && STREAM_STARTS[stream.type] === type && stream.step === number
    if (!stream || stream.step !== number || !(opens || (stream.deltas && stream.type === type))) {
      stream = run.stream = {
        type, position: record.position, at, stored: record.time, step: number, value: {}, cut: false,
        deltas: [], bytes: 0, until: at,
      }
      run.items.push(stream)
      step.items.push(stream)
    } else if (opens) {
      stream.type = type
      stream.deltas = []
      stream.bytes = 0
    }
    stream.deltas?.push({ position: record.position, at, text: delta })
    stream.bytes = (stream.bytes ?? 0) + byteLength(delta)
    stream.until = at
    if (run.generation && run.generation.first === undefined) run.generation.first = at
  }

  private takeType(run: Run, step: Step, item: Item, type: string): void {
    const { value, at, position } = item
    switch (type) {
      case "startRun": {
        const first = objectIn(value, "initialCheckpoint")
        this.takeDelegation(run, first)
        run.begunWith = usageIn(first.usage)
        run.status = run.status || "running"
        for (const result of objectsIn(first, "partialToolResults")) run.results.add(textIn(result, "id"))
        const said = objectsIn(value, "inputMessages").filter(message => message.type === "userMessage")
        run.query = said.length ? partsText(objectsIn(said[said.length - 1], "contents")) : ""
        this.connect(run, at)
        break
      }
      case "startGeneration":
        run.generation = step.generation = { kind: "generation", from: at, to: null, label: `step ${step.number}`, position, step: step.number }
        step.generationPosition = position
        run.bars.push(run.generation)
        break
      case "startStreamingRunResult":
        if (!run.generation) {
          run.generation = { kind: "generation", from: at, to: null, first: at, label: "result", position, step: step.number }
          run.bars.push(run.generation)
        }
        break
      case "completeStreamingReasoning":
        step.reasoning = textIn(value, "text")
        break
      case "completeStreamingRunResult":
        step.result = textIn(value, "text")
        break
      case "callTools":
      case "callInteractiveTool":
      case "callDelegate":
        if (isUsage(value.usage)) step.usage = usageIn(value.usage)
        for (const call of objectsIn(value, "toolCalls")) this.takeCall(run, step, call, at, position)
        if (isObjectCall(value.toolCall)) this.takeCall(run, step, value.toolCall as Value, at, position)
        break
      case "resolveToolResults":
        for (const result of objectsIn(value, "toolResults")) this.takeResult(run, step, result, at, position)
        break
      case "attemptCompletion":
        this.takeResult(run, step, objectIn(value, "toolResult"), at, position)
        break
      case "finishAllToolCalls":
        break
      case "retry":
        if (isUsage(value.usage)) step.usage = usageIn(value.usage)
        this.problem(run, step, "retry", textIn(value, "reason") || errorText(objectIn(value, "error")) || "again", item)
        break
      case "completeRun":
        step.result = step.result || textIn(value, "text")
        break
    }
    if (type in STATUS_OF) this.takeEnd(run, step, item, type)
    else if (type === "continueToNextStep") step.context = step.context ?? contextOf(value)
    if (type in STREAM_ENDS && run.stream) run.stream = null
  }

  private takeEnd(run: Run, step: Step, item: Item, type: string): void {
    run.status = STATUS_OF[type] ?? run.status
    const checkpoint = objectIn(item.value, "checkpoint")
    for (const target of objectsIn(checkpoint, "delegateTo")) run.delegated.add(textIn(target, "toolCallId"))
    if (isUsage(checkpoint.usage)) run.reached = usageIn(checkpoint.usage)
    if (isUsage(item.value.usage) && !step.usage) step.usage = usageIn(item.value.usage)
    for (const bar of run.bars) if (bar.to === null && bar.kind === "tool" && type !== "stopRunByDelegate" && type !== "stopRunByInteractiveTool") bar.to = item.at
    if (type === "stopRunByDelegate") {
      run.waiting = { kind: "wait", from: item.at, to: null, label: "waits for delegates", position: item.position, step: step.number }
      run.bars.push(run.waiting)
      for (const bar of run.bars) if (bar.kind === "tool" && bar.to === null) bar.to = item.at
    } else if (type === "stopRunByInteractiveTool") {
      run.waiting = { kind: "wait", from: item.at, to: null, label: "waits for a person", position: item.position, step: step.number }
      run.bars.push(run.waiting)
    } else if (type === "stopRunByError") {
      const error = errorText(objectIn(item.value, "error")) || errorText(objectIn(checkpoint, "error")) || textIn(item.value, "error")
      run.error = error || "stopped by an error"
      this.problem(run, step, "error", run.error, item)
    } else if (type === "stopRunByExceededMaxSteps") {
      this.problem(run, step, "error", "as many steps as allowed", item)
    }
  }

  private takeCall(run: Run, step: Step, value: Value, at: number, position: number): void {
    const call: ToolCall = {
      id: textIn(value, "id") || textIn(value, "toolCallId"), run: run.id, step: step.number,
      name: textIn(value, "toolName") || "?", skill: textIn(value, "skillName"), args: value.args, at, position,
    }
    this.calls.push(call)
    step.calls.push(call)
    this.callsById.set(`${run.id}/${call.id}`, call)
    run.bars.push({ kind: "tool", from: at, to: null, label: call.name, position, step: step.number })
  }

  private takeResult(run: Run, step: Step, result: Value, at: number, position: number): void {
    const call = this.callsById.get(`${run.id}/${textIn(result, "id")}`)
    if (!call) return
    call.result = result
    call.resultAt = at
    call.resultPosition = position
    call.failed = isFailed(result)
    const bar = run.bars.find(one => one.kind === "tool" && one.position === call.position && one.label === call.name && one.to === null)
    if (bar) {
      bar.to = at
      if (call.failed) bar.failed = true
    }
    if (call.failed) {
      const text = `${call.name}: ${partsText(objectsIn(result, "result"))}`
      const problem: Problem = { kind: "tool", text, at, position, run: run.id, step: step.number }
      this.problems.push(problem)
      step.problems.push(problem)
    }
  }

  private problem(run: Run, step: Step, kind: "retry" | "error", text: string, item: Item): void {
    const problem: Problem = { kind, text, at: item.at, position: item.position, run: run.id, step: step.number }
    this.problems.push(problem)
    step.problems.push(problem)
    run.marks.push({ kind, at: item.at, position: item.position, label: text })
  }

  /** Find the run that this one goes on for: one of the same expert that stopped before, with its tool calls. */
  private connect(run: Run, at: number): void {
    let found: Run | null = null
    for (const before of this.runs.values()) {
      if (before === run || !before.waiting || before.waiting.to !== null || before.expert !== run.expert) continue
      if (before.delegatedBy !== run.delegatedBy || before.delegatedCall !== run.delegatedCall) continue
      const sure = run.results.size > 0 && [...run.results].every(id => before.delegated.has(id))
      if (sure || !found) found = before
      if (sure) break
    }
    if (!found) return
    run.continues = found.id
    if (found.waiting) found.waiting.to = at
  }

  /** Runs in the order of the waterfall, with their depth: a run, its delegates, the run that goes on. */
  lanes(): { run: Run; depth: number }[] {
    const children = new Map<string | null, Run[]>()
    for (const run of this.runs.values()) {
      const parent = run.continues ?? (run.delegatedBy !== null && this.runs.has(run.delegatedBy) ? run.delegatedBy : null)
      const list = children.get(parent) ?? []
      list.push(run)
      children.set(parent, list)
    }
    for (const list of children.values()) list.sort((a, b) => Number(a.continues !== null) - Number(b.continues !== null) || a.from - b.from)
    const lanes: { run: Run; depth: number }[] = []
    const seen = new Set<Run>()
    const stack = [...(children.get(null) ?? [])].reverse().map(run => ({ run, depth: 0 }))
    const walk = (): void => {
      for (let next = stack.pop(); next; next = stack.pop()) {
        if (seen.has(next.run)) continue
        seen.add(next.run)
        lanes.push(next)
        for (const child of [...(children.get(next.run.id) ?? [])].reverse()) {
          stack.push({ run: child, depth: child.continues === next.run.id ? next.depth : next.depth + 1 })
        }
      }
    }
    walk()
    for (const run of this.runs.values()) {
      stack.push({ run, depth: 0 }) // runs that delegate to each other in a ring
      walk()
    }
    return lanes
  }

  get usage(): Usage {
    return added([...this.runs.values()].map(run => run.own).filter(usage => usage !== null))
  }

  get status(): string {
    if (this.value) return textIn(this.value, "status")
    const roots = [...this.runs.values()].filter(run => run.delegatedBy === null)
    return roots[roots.length - 1]?.status ?? ""
  }

  get expert(): string {
    return this.value ? textIn(this.value, "coordinatorExpertKey") : this.runs.values().next().value?.expert ?? ""
  }
}

function touch(run: Run, position: number): void {
  run.firstPosition = run.firstPosition || position
  run.lastPosition = position
}

function isUsage(value: unknown): boolean {
  return typeof value === "object" && value !== null && "totalTokens" in value
}

function isObjectCall(value: unknown): boolean {
  return typeof value === "object" && value !== null && "toolName" in value
}

function contextOf(value: Value): number | null {
  const used = objectIn(value, "checkpoint").contextWindowUsage
  return typeof used === "number" ? used : null
}

/** A job as it was when a position was the newest one. */
export function asOf(id: string, log: readonly Record[], position: number): Job {
  const job = new Job(id)
  for (const record of log) {
    if (record.position > position) break
    job.apply(record)
  }
  return job
}
