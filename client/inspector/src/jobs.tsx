// All jobs: newest first, searched and filtered, read in pages as far as they are looked at, and live.

import type { JSX } from "preact"
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks"
import { path, type Summary } from "./data"
import { count, line, short, span } from "./format"
import { JobList, TIMES, type Filters } from "./joblist"
import { Ago, Empty, Link, Name, Rows, Status, Trouble, moodOf, useNow } from "./parts"
import { change, usePlace } from "./router"
import { numberIn } from "./values"

const SEARCHED = 200
const TYPED_MS = 150
const ROW = 56

const STATUSES = [
  ["", "any status"], ["running", "running"], ["completed", "completed"], ["stoppedByError", "error"],
  ["stoppedByMaxSteps", "max steps"], ["stoppedByInteractiveTool", "waits for a person"],
] as const

export function errorsOf(job: Summary): number {
  return (job.eventTypes.stopRunByError ?? 0) + (job.eventTypes.retry ?? 0)
}

/** A text that is being typed, when it has not changed for a while. */
function useSettled(text: string, ms: number): string {
  const [settled, set] = useState(text)
  useEffect(() => {
    const timer = setTimeout(() => set(text), ms)
    return () => clearTimeout(timer)
  }, [text, ms])
  return text === "" ? "" : settled
}

/** Whether filters differ from those of a list in what is searched only. */
function isSearchIn({ filters: { status, expert, time } }: JobList, filters: Filters): boolean {
  return status === filters.status && expert === filters.expert && time === filters.time
}

export function Jobs(): JSX.Element {
  const { query } = usePlace()
  const now = useNow()
  const [, draw] = useState(0)
  const search = useSettled(query.q ?? "", TYPED_MS)
  const filters: Filters = { search, status: query.status ?? "", expert: query.expert ?? "", time: query.time ?? "" }
  const key = JSON.stringify(filters)
  const list = useMemo(() => new JobList(filters, () => draw(n => n + 1)), [key])
  useEffect(() => {
    void list.start()
    return () => list.end()
  }, [list])

  const before = useRef(list) // is shown until the first page of a search is here
  if (list.ready || !isSearchIn(before.current, filters)) before.current = list
  const view = list.ready ? list : before.current
  const found = useMemo(() => {
    const text = search.toLowerCase()
    return text === "" ? view.order
      : view.order.filter(job => job.jobId.toLowerCase().includes(text) || (job.expertKey ?? "").toLowerCase().includes(text))
  }, [view, view.order, search])
  const searching = search !== "" && list.ready && !list.complete && found.length < SEARCHED
  useEffect(() => {
    if (searching && !list.loading) void list.more() // a page of a search may have few jobs, or none
  }, [searching, list.loading, list.order])
  const end = useCallback(() => void list.more(), [list])
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
          {list.ready && `${count(found.length)}${list.complete ? "" : "+"}`}
        </p>
      </div>
      <form class="filters" onSubmit={event => event.preventDefault()} role="search">
        <label class="grow"><span class="hidden">Search</span>
          <input ref={input} type="search" maxLength={200} placeholder="Search by id or expert   /" value={query.q ?? ""}
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
