// The records of a job: read in pages, then followed; the screen is drawn again at most every 100 ms.

import { useEffect, useRef, useState } from "preact/hooks"
import { api, ApiError, exported, json, type Page, type Record, type Summary } from "./data"
import { isDelta } from "./events"
import { asOf, Job } from "./model"
import { readInOrder } from "./selections"
import { stream } from "./stream"
import { Left } from "./left"
import { textIn } from "./values"

const PAGE = 5000
const FILTERED_PAGE = 10_000
const BEFORE = 64 // the job itself is stored shortly before its first run
const DRAW_MS = 100

export type Loaded = {
  job: Job
  /** Grows with each change of `job`. */
  version: number
  state: "loading" | "live" | "paused" | "done"
  trouble: string
  missing: boolean
  log: Record[]
  /** The deltas that are not in `job` and `log`. */
  left: Left
}

/** What is kept of a delta: of 50,000 events most are such. */
function lighter(record: Record): Record {
  const { value } = record
  if (!isDelta(record)) return record
  const { type, runId, stepNumber, timestamp, expertKey, delta } = value
  return { position: record.position, time: record.time, op: record.op, value: { type, runId, stepNumber, timestamp, expertKey, delta } }
}

class Loader {
  readonly job: Job
  readonly log: Record[] = []
  version = 0
  state: Loaded["state"] = "loading"
  trouble = ""
  missing = false
  paused = false
  left = new Left()
  private stop: (() => void) | null = null
  private timer = 0
  private readonly ending = new AbortController()

  /** With `whole` all deltas are read, else of a job that has many those of one run, or none. */
  constructor(id: string, readonly whole: boolean, readonly run: string | null, private readonly draw: () => void) {
    this.job = new Job(id)
  }

  async start(): Promise<void> {
    if (exported) {
      for (const record of exported.records) this.take(record)
      this.state = "done"
      this.changed(true)
      return
    }
    try {
      const after = await this.load()
      this.state = "live"
      this.changed(true)
      if (!this.ending.signal.aborted) this.follow(after)
    } catch (error) {
      if (this.ending.signal.aborted) return
      this.trouble = error instanceof Error ? error.message : String(error)
      this.missing = error instanceof ApiError && error.code === "NOT_FOUND"
      this.changed(true)
      if (!this.missing) setTimeout(() => void this.start(), 1000)
    }
  }

  private async load(): Promise<number> {
    const { signal } = this.ending
    const { runs, position } = await this.runs()
    if (runs.length === 0) this.job.value = await json(api(["jobs", this.job.id]), signal)
    if (!this.whole) this.left = Left.of(runs, this.run)
    const { selections } = this.left
    const some = selections.length > 0
    const first = runs.reduce((least, run) => Math.min(least, run.firstPosition ?? Infinity), Infinity)
    const span = {
      job: this.job.id, signal, limit: some ? FILTERED_PAGE : PAGE,
      after: Math.max(this.job.position, Number.isFinite(first) ? first - 1 - BEFORE : 0, 0),
      upTo: some ? position : Infinity, // events of other types may come after it
    }
    const after = await readInOrder(some ? selections : [{}], span, records => {
      for (const record of records) this.take(record)
      this.trouble = ""
      this.changed()
    })
    this.left.reach(this.job)
    if (this.job.value === null) {
      try {
        this.job.value = await json(api(["jobs", this.job.id]), signal)
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== "NOT_FOUND") throw error
      }
    }
    return after
  }

  /** Summaries of all runs, and a position up to which they have everything. */
  private async runs(): Promise<{ runs: Summary[]; position: number }> {
    const runs: Summary[] = []
    let cursor: string | null = null
    let position = Infinity
    do {
      const page: Page<Summary> = await json(api(["jobs", this.job.id, "runs"], { limit: 1000, order: "oldest", after: cursor }), this.ending.signal)
      runs.push(...page.items)
      position = Math.min(position, page.position ?? 0)
      cursor = page.next
    } while (cursor !== null)
    return { runs, position }
  }

  private take(record: Record): void {
    if (record.position <= this.job.position) return
    const light = lighter(record)
    if (isDelta(light)) this.left.came(textIn(light.value, "runId"), light.position)
    this.log.push(light)
    this.job.apply(light)
  }

  private follow(after: number): void {
    const say = (trouble: string): void => {
      if (trouble === this.trouble) return
      this.trouble = trouble
      this.changed(true)
    }
    this.stop = stream({ job: this.job.id, form: "merged" }, after, {
      came: data => {
        for (const record of JSON.parse(data) as Record[]) this.take(record)
        this.changed()
      },
      trouble: say,
      ok: () => say(""),
      gone: () => say("The store was replaced. Load the page again."),
    })
  }

  changed(now = false): void {
    this.version++
    if (this.paused && !now) return
    if (now) {
      this.draw()
      return
    }
    if (this.timer) return
    this.timer = window.setTimeout(() => {
      this.timer = 0
      this.draw()
    }, DRAW_MS)
  }

  end(): void {
    this.ending.abort()
    clearTimeout(this.timer)
    this.stop?.()
  }
}

/**
 * The records of a job, as they come. Without `whole`, of a job that has many deltas only those of one run are
 * read, or none; once `whole` is asked for, what there is stays until all is read.
 */
export function useJob(id: string, whole: boolean, run: string | null = null): Loaded & { pause: (paused: boolean) => void; paused: boolean } {
  const [, draw] = useState(0)
  const again = (): void => draw(n => n + 1)
  const shown = useRef<Loader | null>(null)
  const next = useRef<Loader | null>(null)
  if (shown.current?.job.id !== id) {
    shown.current?.end()
    shown.current = new Loader(id, whole, run, again)
  }
  useEffect(() => {
    const current = shown.current
    void current?.start()
    return () => {
      shown.current?.end()
      next.current?.end()
      shown.current = next.current = null
    }
  }, [id])
  const lacks = whole && shown.current.left.total > 0 && shown.current.state === "live"
  useEffect(() => {
    if (!lacks || next.current) return
    const loader = new Loader(id, true, null, () => {
      if (shown.current !== loader && loader.state === "live") {
        loader.paused = shown.current?.paused ?? false
        shown.current?.end()
        shown.current = loader
        next.current = null
      }
      if (shown.current === loader) again()
    })
    next.current = loader
    void loader.start()
  }, [lacks])
  const current = shown.current
  return {
    job: current.job,
    version: current.version,
    state: current.paused && current.state === "live" ? "paused" : current.state,
    trouble: current.trouble,
    missing: current.missing,
    log: current.log,
    left: current.left,
    paused: current.paused,
    pause: paused => {
      current.paused = paused
      current.changed(true)
    },
  }
}

/** The job as it was at a position; itself where there is none. */
export function useAsOf(loaded: Loaded, position: number | null): Job {
  const kept = useRef<{ job: Job; log: Record[]; position: number; records: number } | null>(null)
  if (position === null) {
    kept.current = null
    return loaded.job
  }
  const { log } = loaded
  const reached = (log[(kept.current?.records ?? 0) - 1]?.position ?? 0) >= position
  if (kept.current?.position !== position || kept.current.log !== log || (!reached && kept.current.records < log.length)) {
    kept.current = { job: asOf(loaded.job.id, log, position), log, position, records: log.length }
  }
  return kept.current.job
}
