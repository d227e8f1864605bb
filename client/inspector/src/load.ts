// The records of a job: read in pages, then followed; the screen is drawn again at most every 100 ms.

import { useEffect, useRef, useState } from "preact/hooks"
import { api, ApiError, exported, json, type Page, type Record, type RecordPage, type Summary } from "./data"
import { asOf, Job } from "./model"
import { stream } from "./stream"

const PAGE = 5000
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
}

/** What is kept of a delta: of 50,000 events most are such. */
function lighter(record: Record): Record {
  const { value } = record
  if (record.op !== "storeEvent" || (value.type !== "streamReasoning" && value.type !== "streamRunResult")) return record
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
  private stop: (() => void) | null = null
  private timer = 0
  private readonly ending = new AbortController()

  constructor(id: string, private readonly draw: () => void) {
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
    let first = Infinity
    let cursor: string | null = null
    do {
      const page: Page<Summary> = await json(api(["jobs", this.job.id, "runs"], { limit: 1000, order: "oldest", after: cursor }), signal)
      for (const run of page.items) first = Math.min(first, run.firstPosition ?? Infinity)
      cursor = page.next
    } while (cursor !== null)
    if (first === Infinity) {
      this.job.value = await json(api(["jobs", this.job.id]), signal)
      first = 1
    }
    let after = Math.max(this.job.position, first - 1 - BEFORE, 0)
    const read = (from: number): Promise<RecordPage> => json(api(["records"], { job: this.job.id, after: from, limit: PAGE }), signal)
    let coming = read(after)
    for (;;) {
      const page: RecordPage = await coming
      after = page.next
      if (!page.end) coming = read(after) // it is read while this page is taken
      for (const record of page.items) this.take(record)
      this.trouble = ""
      this.changed()
      if (page.end) break
    }
    if (this.job.value === null) {
      try {
        this.job.value = await json(api(["jobs", this.job.id]), signal)
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== "NOT_FOUND") throw error
      }
    }
    return after
  }

  private take(record: Record): void {
    if (record.position <= this.job.position) return
    const light = lighter(record)
    this.log.push(light)
    this.job.apply(light)
  }

  private follow(after: number): void {
    const say = (trouble: string): void => {
      if (trouble === this.trouble) return
      this.trouble = trouble
      this.changed(true)
    }
    this.stop = stream({ job: this.job.id }, after, {
      record: data => {
        this.take(JSON.parse(data) as Record)
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

/** The records of a job, as they come. */
export function useJob(id: string): Loaded & { pause: (paused: boolean) => void; paused: boolean } {
  const [, draw] = useState(0)
  const loader = useRef<Loader | null>(null)
  if (loader.current?.job.id !== id) {
    loader.current?.end()
    loader.current = new Loader(id, () => draw(n => n + 1))
  }
  useEffect(() => {
    const current = loader.current
    void current?.start()
    return () => {
      current?.end()
      if (loader.current === current) loader.current = null
    }
  }, [id])
  const current = loader.current
  return {
    job: current.job,
    version: current.version,
    state: current.paused && current.state === "live" ? "paused" : current.state,
    trouble: current.trouble,
    missing: current.missing,
    log: current.log,
    paused: current.paused,
    pause: paused => {
      current.paused = paused
      current.changed(true)
    },
  }
}

/** The job as it was at a position; itself where there is none. */
export function useAsOf(loaded: Loaded, position: number | null): Job {
  const kept = useRef<{ job: Job; position: number; records: number } | null>(null)
  if (position === null) {
    kept.current = null
    return loaded.job
  }
  const { log } = loaded
  const reached = (log[(kept.current?.records ?? 0) - 1]?.position ?? 0) >= position
  if (kept.current?.position !== position || kept.current.job.id !== loaded.job.id || (!reached && kept.current.records < log.length)) {
    kept.current = { job: asOf(loaded.job.id, log, position), position, records: log.length }
  }
  return kept.current.job
}
