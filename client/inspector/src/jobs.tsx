// All jobs: newest first, searched and filtered, read in pages as far as they are looked at, and live.

import type { JSX } from "preact"
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks"
import { api, json, stream, type Page, type Summary } from "./data"
import { count, line, short, span } from "./format"
import { Ago, Empty, Link, Name, Rows, Status, Trouble, moodOf, useNow } from "./parts"
import { change, usePlace } from "./router"
import { path } from "./data"
import { numberIn } from "./values"

const PAGE = 500
const SEARCHED = 1000
const FIRST = 100
const ROW = 56
const SEARCHED_MAX = 100_000
const REFRESH_MS = 250

const STATUSES = [
  ["", "any status"], ["running", "running"], ["completed", "completed"], ["stoppedByError", "error"],
  ["stoppedByMaxSteps", "max steps"], ["stoppedByInteractiveTool", "waits for a person"],
] as const
const TIMES: [string, string, number][] = [
  ["", "any time", 0], ["1h", "last hour", 3_600_000], ["1d", "last day", 86_400_000], ["7d", "last 7 days", 604_800_000],
]

type Filters = { status: string; expert: string; time: string }

/** The jobs that were read so far. */
class List {
  jobs = new Map<string, Summary>()
  order: Summary[] = []
  cursor: string | null = null
  complete = false
  loading = false
  trouble = ""
  ready = false

  constructor(readonly filters: Filters, private readonly draw: () => void) {}

  private query(more: { [name: string]: string | number | null }): string {
    const age = TIMES.find(([name]) => name === this.filters.time)?.[2]
    return api(["jobs"], {
      status: this.filters.status, expert: this.filters.expert, since: age ? Date.now() - age : null, ...more,
    })
  }

  /** Read the next page. */
  async more(size = PAGE): Promise<void> {
    if (this.loading || this.complete) return
    this.loading = true
    try {
      const page: Page<Summary> = await json(this.query({ limit: this.ready ? size : FIRST, after: this.cursor }))
      this.take(page.items)
      this.cursor = page.next
      this.complete = page.next === null
      this.ready = true
      this.trouble = ""
    } catch (error) {
      this.trouble = String(error instanceof Error ? error.message : error)
    }
    this.loading = false
    this.draw()
  }

  /** Read the newest again, and those that have changed. */
  async refresh(changed: Set<string>): Promise<void> {
    try {
      const page: Page<Summary> = await json(this.query({ limit: FIRST }))
      const got = new Set(page.items.map(job => job.jobId))
      this.take(page.items)
      const others = [...changed].map(id => this.jobs.get(id)).filter(job => job !== undefined && !got.has(job.jobId))
      for (const job of others.slice(0, 20)) {
        if (!job) continue
        const found: Page<Summary> = await json(api(["jobs"], { since: job.startedAt, until: job.startedAt + 1, limit: 100 }))
        this.take(found.items.filter(one => this.jobs.has(one.jobId)))
      }
      this.trouble = ""
    } catch (error) {
      this.trouble = String(error instanceof Error ? error.message : error)
    }
    this.draw()
  }

  private take(items: Summary[]): void {
    const fresh = items.filter(job => !this.jobs.has(job.jobId))
    const last = this.order[this.order.length - 1]
    const first = fresh[0]
    for (const job of items) this.jobs.set(job.jobId, job)
    const follows = fresh.length === items.length && (!last || (first !== undefined && last.startedAt >= first.startedAt))
    this.order = follows // the next page needs no sorting
      ? this.order.concat(fresh)
      : [...this.jobs.values()].sort((a, b) => b.startedAt - a.startedAt || (a.jobId < b.jobId ? -1 : 1))
  }
}

export function errorsOf(job: Summary): number {
  return (job.eventTypes.stopRunByError ?? 0) + (job.eventTypes.retry ?? 0)
}

export function Jobs(): JSX.Element {
  const { query } = usePlace()
  const now = useNow()
  const [, draw] = useState(0)
  const filters: Filters = { status: query.status ?? "", expert: query.expert ?? "", time: query.time ?? "" }
  const key = JSON.stringify(filters)
  const list = useMemo(() => new List(filters, () => draw(n => n + 1)), [key])
  const search = (query.q ?? "").toLowerCase()
  useEffect(() => void list.more(), [list])
  useEffect(() => live(list), [list])

  const found = useMemo(() => {
    if (!search) return list.order
    return list.order.filter(job => job.jobId.toLowerCase().includes(search) || (job.expertKey ?? "").toLowerCase().includes(search))
  }, [list.order, search])
  const searching = search !== "" && !list.complete && list.order.length < SEARCHED_MAX
  useEffect(() => {
    if (searching && found.length < 200 && !list.loading && !list.trouble) void list.more(SEARCHED)
  }, [searching, found.length, list.loading, list.order])
  const end = useCallback(() => void (search ? undefined : list.more()), [list, search])
  const input = useRef<HTMLInputElement>(null)
  useEffect(() => {
    const slash = (event: KeyboardEvent): void => {
      if (event.key === "/" && document.activeElement?.tagName !== "INPUT") {
        event.preventDefault()
        input.current?.focus()
      }
    }
    addEventListener("keydown", slash)
    return () => removeEventListener("keydown", slash)
  }, [])

  return (
    <main>
      <div class="head">
        <h1>Jobs</h1>
        <p class="dim" aria-live="polite">
          {list.ready && `${count(found.length)}${list.complete || search ? "" : "+"}${search ? ` of ${count(list.order.length)}${list.complete ? "" : "+"} searched` : ""}`}
        </p>
      </div>
      <form class="filters" onSubmit={event => event.preventDefault()} role="search">
        <label class="grow"><span class="hidden">Search</span>
          <input ref={input} type="search" placeholder="Search by id or expert   /" value={query.q ?? ""}
            onInput={event => change({ q: event.currentTarget.value || null })} />
        </label>
        <label><span class="hidden">Status</span>
          <select value={filters.status} onChange={event => change({ status: event.currentTarget.value || null })}>
            {STATUSES.map(([value, word]) => <option key={value} value={value}>{word}</option>)}
          </select>
        </label>
        <label><span class="hidden">Time</span>
          <select value={filters.time} onChange={event => change({ time: event.currentTarget.value || null })}>
            {TIMES.map(([value, word]) => <option key={value} value={value}>{word}</option>)}
          </select>
        </label>
        {filters.expert && (
          <button type="button" class="chip" title="Show all experts" onClick={() => change({ expert: null })}>
            <Name text={filters.expert} /> ✕
          </button>
        )}
      </form>
      <Trouble text={list.trouble} />
      <div class="jobs">
        <div class="job columns" aria-hidden="true">
          <span>Job</span><span>Status</span><span>Started</span><span class="num">Took</span>
          <span class="num">Steps</span><span class="num">Runs</span><span class="num">Tokens</span><span class="num">Errors</span>
        </div>
        <Rows items={found} height={ROW} keyOf={job => job.jobId} label="Jobs" end={end}
          row={job => <Row job={job} now={now} />} />
      </div>
      {list.ready && found.length === 0 && (
        <Empty>{search || filters.status || filters.expert || filters.time
          ? (searching ? "Searching…" : "No job fits.")
          : "No jobs yet. They appear here as soon as an agent stores something."}</Empty>
      )}
    </main>
  )
}

function Row({ job, now }: { job: Summary; now: number }): JSX.Element {
  const errors = errorsOf(job)
  const [mood] = moodOf(job.status, job.lastEventAt, now)
  const ended = job.lastEventAt ?? job.startedAt
  const took = mood === "run" ? now - job.startedAt : ended - job.startedAt
  return (
    <Link to={path(["jobs", job.jobId])} class="job">
      <span class="what"><Name text={job.jobId} code /><small>{line(job.expertKey ?? "", 80)}</small></span>
      <span><Status status={job.status} lastAt={job.lastEventAt} now={now} /></span>
      <span class="dim"><Ago ms={job.startedAt} now={now} /></span>
      <span class="num">{span(took)}</span>
      <span class="num">{count(job.eventTypes.startGeneration ?? 0)}</span>
      <span class="num">{count(job.runs ?? 0)}</span>
      <span class="num">{short(numberIn(job.usage, "totalTokens"))}</span>
      <span class={`num ${errors ? "bad" : "dim"}`}>{errors ? count(errors) : "–"}</span>
    </Link>
  )
}

/** Follow the store: what has changed is read again, a few times a second at most. */
function live(list: List): () => void {
  const changed = new Set<string>()
  let timer = 0
  let ended = false
  const refresh = async (): Promise<void> => {
    const now = new Set(changed)
    changed.clear()
    await list.refresh(now)
    timer = 0
    if (changed.size && !ended) timer = window.setTimeout(() => void refresh(), REFRESH_MS)
  }
  const stop = stream({ form: "heads" }, {
    record: data => {
      changed.add((JSON.parse(data) as { jobId: string }).jobId)
      timer ||= window.setTimeout(() => void refresh(), 20)
    },
    trouble: (_code, message) => {
      list.trouble = message
      void list.refresh(new Set())
    },
    ok: () => {
      if (!list.trouble) return
      list.trouble = ""
      void list.refresh(new Set())
    },
  })
  return () => {
    ended = true
    clearTimeout(timer)
    stop()
  }
}
