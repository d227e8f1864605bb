// What each type of event changes in a job.

import type { Record } from "./data"
import { byteLength } from "./format"
import type { Job } from "./model"
import { STEPS_TEXT, type Item, type Problem, type Run, type Step, type ToolCall } from "./shapes"
import { errorText, isFailed, numberIn, objectIn, objectsIn, partsText, table, textIn, usageIn, type Value } from "./values"

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

export function isDelta(record: Record): boolean {
  return record.op === "storeEvent" && textIn(record.value, "type") in DELTAS
}

/** Take an event into a job. */
export function takeEvent(job: Job, record: Record): void {
  const { value } = record
  const type = textIn(value, "type")
  const run = job.run(textIn(value, "runId"))
  const at = numberIn(value, "timestamp")
  const number = numberIn(value, "stepNumber")
  run.touch(record.position)
  run.events++
  run.expert = run.expert || textIn(value, "expertKey")
  if (at < run.from) run.from = at
  if (at > run.to) run.to = at
  if (at < job.from) job.from = at
  if (at > job.to) job.to = at
  const step = run.step(number, at)
  if (type in DELTAS) {
    takeDelta(run, step, record, type, at, number)
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
  takeType(job, run, step, item, type)
}

function takeDelta(run: Run, step: Step, record: Record, type: string, at: number, number: number): void {
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

function takeType(job: Job, run: Run, step: Step, item: Item, type: string): void {
  const { value, at, position } = item
  switch (type) {
    case "startRun": {
      const first = objectIn(value, "initialCheckpoint")
      run.takeDelegation(first)
      run.begunWith = usageIn(first.usage)
      run.status = run.status || "running"
      for (const result of objectsIn(first, "partialToolResults")) run.results.add(textIn(result, "id"))
      const said = objectsIn(value, "inputMessages").filter(message => message.type === "userMessage")
      run.query = said.length ? partsText(objectsIn(said[said.length - 1], "contents")) : ""
      connect(job, run, at)
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
      for (const call of objectsIn(value, "toolCalls")) takeCall(job, run, step, call, at, position)
      if (isObjectCall(value.toolCall)) takeCall(job, run, step, value.toolCall as Value, at, position)
      break
    case "resolveToolResults":
      for (const result of objectsIn(value, "toolResults")) takeResult(job, run, step, result, at, position)
      break
    case "attemptCompletion":
      takeResult(job, run, step, objectIn(value, "toolResult"), at, position)
      break
    case "finishAllToolCalls":
      break
    case "retry":
      if (isUsage(value.usage)) step.usage = usageIn(value.usage)
      problem(job, run, step, "retry", textIn(value, "reason") || errorText(objectIn(value, "error")) || "again", item)
      break
    case "completeRun":
      step.result = step.result || textIn(value, "text")
      break
  }
  if (type in STATUS_OF) takeEnd(job, run, step, item, type)
  else if (type === "continueToNextStep") step.context = step.context ?? contextOf(value)
  if (type in STREAM_ENDS && run.stream) run.stream = null
}

function takeEnd(job: Job, run: Run, step: Step, item: Item, type: string): void {
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
    problem(job, run, step, "error", run.error, item)
  } else if (type === "stopRunByExceededMaxSteps") {
    problem(job, run, step, "steps", STEPS_TEXT, item)
  }
}

function takeCall(job: Job, run: Run, step: Step, value: Value, at: number, position: number): void {
  const call: ToolCall = {
    id: textIn(value, "id") || textIn(value, "toolCallId"), run: run.id, step: step.number,
    name: textIn(value, "toolName") || "?", skill: textIn(value, "skillName"), args: value.args, at, position,
  }
  const key = `${run.id}/${call.id}`
  const known = job.callsById.get(key)
  if (known && known.step === call.step && known.name === call.name) return // callTools and callDelegate both name it
  job.calls.push(call)
  step.calls.push(call)
  job.callsById.set(key, call)
  run.bars.push({ kind: "tool", from: at, to: null, label: call.name, position, step: step.number })
}

function takeResult(job: Job, run: Run, step: Step, result: Value, at: number, position: number): void {
  const call = job.callsById.get(`${run.id}/${textIn(result, "id")}`)
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
    job.problems.push(problem)
    step.problems.push(problem)
  }
}

function problem(job: Job, run: Run, step: Step, kind: "retry" | "error" | "steps", text: string, item: Item): void {
  const problem: Problem = { kind, text, at: item.at, position: item.position, run: run.id, step: step.number }
  job.problems.push(problem)
  step.problems.push(problem)
  run.marks.push({ kind: kind === "retry" ? "retry" : "error", at: item.at, position: item.position, label: text })
}

/** Find the run that this one goes on for: one of the same expert that stopped before, with its tool calls. */
function connect(job: Job, run: Run, at: number): void {
  let found: Run | null = null
  for (const before of job.runs.values()) {
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
