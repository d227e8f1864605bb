// The deltas of a job that are not read: a waterfall does not show them, and they are most of the events. The
// summaries of the runs have their count.

import type { Summary } from "./data"
import { DELTAS } from "./events"
import type { Job } from "./model"

const FEW = 5000 // these are read with all the others
const TYPES_MAX = 64

type OfRun = { count: number; upTo: number; lastAt: number }

export class Left {
  /** The types that are read, where not all are; for the gateway. */
  types = ""
  private readonly ofRuns = new Map<string, OfRun>()

  /** All deltas of these runs; none where they are few, or where not all other types of events are known. */
  static of(runs: Summary[]): Left {
    const left = new Left()
    const types = new Set<string>()
    let all = 0
    for (const run of runs) {
      let known = 0
      let deltas = 0
      for (const [type, number] of Object.entries(run.eventTypes)) {
        known += number
        if (type in DELTAS) deltas += number
        else types.add(type)
      }
      if (known !== run.records.events || [...types].some(type => type === "" || type.includes(","))) return new Left()
      left.ofRuns.set(run.runId ?? "", { count: deltas, upTo: run.lastPosition, lastAt: run.lastEventAt ?? 0 })
      all += deltas
    }
    if (all <= FEW || types.size === 0 || types.size > TYPES_MAX) return new Left()
    left.types = [...types].join(",")
    return left
  }

  /** A delta came all the same. */
  came(run: string, position: number): void {
    const found = this.ofRuns.get(run)
    if (found && found.count > 0 && position <= found.upTo) found.count--
  }

  /** Let the runs of a job reach to their last events, of which deltas may be the last. */
  reach(job: Job): void {
    for (const [id, { lastAt }] of this.ofRuns) {
      const run = job.runs.get(id)
      if (!run) continue
      run.to = Math.max(run.to, lastAt)
      job.to = Math.max(job.to, lastAt)
    }
  }

  /** Of a run. */
  count(run: string): number {
    return this.ofRuns.get(run)?.count ?? 0
  }

  get total(): number {
    let sum = 0
    for (const { count } of this.ofRuns.values()) sum += count
    return sum
  }
}
