// Usage over time, over all jobs: by expert, model and run, and by job.

import type { JSX } from "preact"
import { path, type Summary } from "./data"
import { count, span, when } from "./format"
import { UsageTable } from "./job"
import { PERIODS, useListing } from "./listing"
import { Empty, Link, Name, Tabs, Trouble } from "./parts"
import { Columns, type Column } from "./plots"
import { change, usePlace } from "./router"
import { added, usageIn, type Usage, type Value } from "./values"

export const JOBS_MAX = 5000
const RUNS_MAX = 5000
export const PAGE = 1000
const PLOTTED = 5
const ROWS = 200

/** What a run used itself. */
type RunUsage = {
  jobId: string; runId: string; expertKey: string | null; model: string | null; startedAt: number; usage: Value | null
}

/** Tokens at a time, of somebody. */
type Used = { key: string; at: number; usage: Usage }

export function Period({ value }: { value: string }): JSX.Element {
  return (
    <form class="filters" onSubmit={event => event.preventDefault()}>
      <label><span class="hidden">Period</span>
        <select value={value} onChange={event => change({ time: event.currentTarget.value })}>
          {PERIODS.map(([name, word]) => <option key={name} value={name}>{word}</option>)}
        </select>
      </label>
    </form>
  )
}

const VIEWS = { expert: "Expert", model: "Model", run: "Run", job: "Job" } as const
type View = keyof typeof VIEWS
const TITLES: { [view in View]: string } = {
  expert: "Tokens over time, by expert", model: "Tokens over time, by model", run: "Tokens over time, by run",
  job: "Tokens over time, by the expert of the job",
}

export function UsagePage(): JSX.Element {
  const { query } = usePlace()
  const period = query.time ?? "all"
  const view: View = query.by !== undefined && Object.hasOwn(VIEWS, query.by) ? query.by as View : "expert"
  const runs = useListing<RunUsage>(view === "job" ? null : "usage", period, PAGE, RUNS_MAX)
  const jobs = useListing<Summary>(view === "job" ? "jobs" : null, period, PAGE, JOBS_MAX)
  const read = view === "job" ? jobs : runs
  const used = view === "job"
    ? jobs.items.map(job => ({ key: job.expertKey ?? "unknown", at: job.startedAt, usage: usageIn(job.usage) }))
    : runs.items.map(run => ({ key: keyOf(run, view), at: run.startedAt, usage: usageIn(run.usage) }))
  const groups = new Map<string, Used[]>()
  for (const one of used) {
    const group = groups.get(one.key)
    if (group) group.push(one)
    else groups.set(one.key, [one])
  }
  const rows = [...groups].map(([key, group]) => ({ key, number: group.length, usage: added(group.map(one => one.usage)) }))
    .sort((a, b) => b.usage.totalTokens - a.usage.totalTokens)
  const byKey = new Map(view === "run" ? runs.items.map(run => [keyOf(run, view), run]) : [])
  const names = rows.slice(0, PLOTTED).map(row => row.key)
  const label = (key: string): string => (view === "run" ? `${byKey.get(key)?.expertKey ?? "unknown"} ${byKey.get(key)?.runId ?? ""}` : key)
  return (
    <main>
      <div class="head"><h1>Usage</h1>
        <span class="dim" aria-live="polite">{counted(read.items.length, view === "job" ? "jobs" : "runs", read)}</span>
      </div>
      <Period value={period} />
      <Tabs current={view} tabs={(Object.keys(VIEWS) as View[]).map(name => (
        { name, label: `By ${VIEWS[name].toLowerCase()}`, to: path(["usage"], { time: query.time, by: name === "expert" ? null : name }) }
      ))} />
      <Trouble text={read.trouble} />
      {used.length === 0 ? <Empty>{read.ready ? `No ${view === "job" ? "job" : "run"} began in this time.` : "Counting…"}</Empty> : (
        <>
          <Columns columns={columnsOf(used, period, names)} names={[...names, ...(rows.length > names.length ? ["others"] : [])]} labels={new Map(names.map(key => [key, label(key)]))} title={TITLES[view]} />
          <UsageTable title={view === "job" ? "Expert of the job" : VIEWS[view]} counted={view === "job" ? "jobs" : "runs"} rows={rows.slice(0, ROWS).map(row => {
            const run = byKey.get(row.key)
            return run ? { name: <RunName run={run} />, usage: row.usage } : { name: nameOf(view, row.key), number: row.number, usage: row.usage }
          })} />
          {rows.length > ROWS && <p class="dim">{count(rows.length - ROWS)} more are not listed; the plot counts them as others.</p>}
          <p class="dim">{view === "job"
            ? "As the job, or its last checkpoint, says, at the time when the job began."
            : "What each run used itself, without that of its delegates, at the time when the run began."}
          {view === "model" && " The model stands in the setting of a run; a run without one counts as unknown."}</p>
        </>
      )}
    </main>
  )
}

/** How many were counted, and whether these are all. */
export function counted(number: number, what: string, read: { complete: boolean; ready: boolean }): string {
  if (!read.ready) return number ? `counting: ${count(number)} ${what}…` : ""
  return `${count(number)} ${what}${read.complete ? "" : ", the newest; older ones are not counted"}`
}

function keyOf(run: RunUsage, view: "expert" | "model" | "run"): string {
  if (view === "run") return JSON.stringify([run.jobId, run.runId])
  return (view === "expert" ? run.expertKey : run.model) ?? "unknown"
}

function nameOf(view: View, key: string): JSX.Element {
  if (view === "model") return <Name text={key} />
  return <Link to={path([], { expert: key === "unknown" ? null : key })}><Name text={key} /></Link>
}

function RunName({ run }: { run: RunUsage }): JSX.Element {
  return (
    <>
      <Link to={path(["jobs", run.jobId, "runs", run.runId])}><Name text={run.expertKey ?? "unknown"} /></Link>
      <small class="dim"> <Name text={run.runId} code /> of <Name text={run.jobId} code />{run.model && <>, <Name text={run.model} /></>}</small>
    </>
  )
}

function columnsOf(used: Used[], period: string, names: string[]): Column[] {
  const times = used.map(one => one.at)
  const newest = times.reduce((most, time) => Math.max(most, time), 0)
  const oldest = times.reduce((least, time) => Math.min(least, time), Infinity)
  const size = PERIODS.find(([name]) => name === period)?.[3] || Math.max(60_000, Math.ceil((newest - oldest) / 40))
  const first = Math.floor(oldest / size)
  const number = Math.max(1, Math.min(120, Math.floor(newest / size) - first + 1))
  const columns = Array.from({ length: number }, () => new Map<string, number>())
  const plotted = new Set(names)
  for (const { key, at, usage } of used) {
    const column = columns[Math.min(number - 1, Math.floor(at / size) - first)]
    const name = plotted.has(key) ? key : "others"
    column?.set(name, (column.get(name) ?? 0) + Math.max(0, usage.totalTokens))
  }
  return columns.map((column, index) => {
    const from = (first + index) * size
    const parts = [...names, "others"].map(name => ({ name, value: column.get(name) ?? 0 }))
    const label = new Intl.DateTimeFormat(undefined, number * size > 2 * 86_400_000
      ? { month: "short", day: "2-digit" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(from)
    const sum = parts.reduce((total, part) => total + part.value, 0)
    return { label, parts, title: `${when(from)}, ${span(size)}: ${count(sum)} tokens` }
  })
}
