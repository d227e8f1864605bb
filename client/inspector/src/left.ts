// The deltas of a job that are not read: a waterfall does not show them, and they are most of the events. The
// summaries of the runs have their count.

import type { Summary } from "./data"
import { DELTAS } from "./events"
import type { Selection } from "./selections"
import type { Job } from "./model"

const FEW = 5000 // these are read with all the others
const TYPES_MAX = 64

type OfRun = { count: number; upTo: number; lastAt: number }

const OPS = "storeJob,storeCheckpoint,storeRunSetting,storeEvent,deleteJob,deleteRun,redactRunSetting"

export class Left {
  /** What is read, where not all is. */
  selections: Selection[] = []
  private readonly ofRuns = new Map<string, OfRun>()

  /**
   * All deltas of these runs, but for one of them; none where they are few, or where not all other types of
   * events are known.
   */
  static of(runs: Summary[], but: string | null): Left {
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
      const count = run.runId === but ? 0 : deltas
      left.ofRuns.set(run.runId ?? "", { count, upTo: run.lastPosition, lastAt: run.lastEventAt ?? 0 })
      all += count
    }
    if (all <= FEW || types.size === 0 || types.size > TYPES_MAX) return new Left()
    left.selections.push({ types: [...types].join(","), ops: OPS })
    if (but !== null) left.selections.push({ run: but, types: Object.keys(DELTAS).join(",") })
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
