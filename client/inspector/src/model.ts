// A job, made of its records one by one: what is stored is a history, and so the page can show any moment
// of it, and go on live from where it is.

import type { Record } from "./data"
import { takeEvent } from "./events"
import { lanesOf } from "./lanes"
import { Run, type CheckpointRow, type Problem, type ToolCall } from "./shapes"
import { added, errorText, numberIn, objectIn, objectsIn, textIn, usageIn, type Usage, type Value } from "./values"

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
  /** Tool calls by run and id. */
  readonly callsById = new Map<string, ToolCall>()

  constructor(readonly id: string) {}

  apply(record: Record): void {
    if (record.position <= this.position) return
    this.position = record.position
    this.records++
    const { value } = record
    if (record.op === "storeJob") this.value = value
    else if (record.op === "storeCheckpoint") this.takeCheckpoint(record)
    else if (record.op === "storeRunSetting") this.run(textIn(value, "runId")).model = textIn(value, "model")
    else if (record.op === "storeEvent") takeEvent(this, record)
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
    run.touch(record.position)
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
    run.takeDelegation(value)
    for (const target of objectsIn(value, "delegateTo")) run.delegated.add(textIn(target, "toolCallId"))
    const error = errorText(objectIn(value, "error"))
    if (error) run.error = error
    const step = run.step(row.step, run.to > 0 ? run.to : record.time)
    step.context = context
    if (run.to > 0) {
      run.marks.push({ kind: "checkpoint", at: run.to, position: record.position, label: `checkpoint of step ${row.step}: ${row.status}` })
    }
  }

  /** Runs in the order of the waterfall. */
  lanes(): { run: Run; depth: number }[] {
    return lanesOf(this.runs)
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

/** A job as it was when a position was the newest one. */
export function asOf(id: string, log: readonly Record[], position: number): Job {
  const job = new Job(id)
  for (const record of log) {
    if (record.position > position) break
    job.apply(record)
  }
  return job
}
