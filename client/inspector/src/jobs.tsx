// All jobs: newest first, searched and filtered, read in pages as far as they are looked at, and live.

import type { JSX } from "preact"
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks"
import { path, type Summary } from "./data"
import { count, line, short, span } from "./format"
import { JobList, TIMES, type Filters } from "./joblist"
import { Ago, Empty, Link, Name, Rows, Status, Trouble, moodOf, useNow } from "./parts"
import { change, usePlace } from "./router"
import { numberIn } from "./values"

const SEARCHED = 1000
const ROW = 56
const SEARCHED_MAX = 100_000

const STATUSES = [
  ["", "any status"], ["running", "running"], ["completed", "completed"], ["stoppedByError", "error"],
  ["stoppedByMaxSteps", "max steps"], ["stoppedByInteractiveTool", "waits for a person"],
] as const

export function errorsOf(job: Summary): number {
  return (job.eventTypes.stopRunByError ?? 0) + (job.eventTypes.retry ?? 0)
}

export function Jobs(): JSX.Element {
  const { query } = usePlace()
  const now = useNow()
  const [, draw] = useState(0)
  const filters: Filters = { status: query.status ?? "", expert: query.expert ?? "", time: query.time ?? "" }
  const key = JSON.stringify(filters)
  const list = useMemo(() => new JobList(filters, () => draw(n => n + 1)), [key])
  const search = (query.q ?? "").toLowerCase()
  useEffect(() => {
    void list.start()
    return () => list.end()
  }, [list])

  const found = useMemo(() => {
    if (!search) return list.order
    return list.order.filter(job => job.jobId.toLowerCase().includes(search) || (job.expertKey ?? "").toLowerCase().includes(search))
  }, [list.order, search])
  const searching = search !== "" && !list.complete && list.order.length < SEARCHED_MAX
  useEffect(() => {
    if (searching && found.length < 200 && !list.loading) void list.more(SEARCHED)
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
