// Over all jobs: usage over time, and everything that went wrong.

import type { JSX } from "preact"
import { useEffect, useState } from "preact/hooks"
import { api, json, path, type Page, type Summary } from "./data"
import { count, line, span, when } from "./format"
import { errorsOf } from "./jobs"
import { UsageTable } from "./job"
import { Empty, Link, Name, Status, Tabs, Text, Trouble, useNow, When } from "./parts"
import { Columns } from "./plots"
import { change, usePlace } from "./router"
import { added, errorText, objectIn, textIn, usageIn, type Value } from "./values"

const JOBS_MAX = 5000
const PAGE = 1000
const PERIODS: [string, string, number, number][] = [
  ["1d", "last day", 86_400_000, 3_600_000], ["7d", "last 7 days", 7 * 86_400_000, 6 * 3_600_000],
  ["30d", "last 30 days", 30 * 86_400_000, 86_400_000], ["all", "all", 0, 0],
]

type Read = { jobs: Summary[]; complete: boolean; trouble: string; ready: boolean }

/** Summaries of the newest jobs of a period, up to a bound. */
export function useJobs(period: string): Read {
  const [read, set] = useState<Read>({ jobs: [], complete: false, trouble: "", ready: false })
  useEffect(() => {
    const ending = new AbortController()
    const load = async (): Promise<void> => {
      const age = PERIODS.find(([name]) => name === period)?.[2]
      const jobs: Summary[] = []
      let after: string | null = null
      do {
        const page: Page<Summary> = await json(api(["jobs"], { limit: PAGE, after, since: age ? Date.now() - age : null }), ending.signal)
        jobs.push(...page.items)
        after = page.next
      } while (after !== null && jobs.length < JOBS_MAX)
      set({ jobs, complete: after === null, trouble: "", ready: true })
    }
    load().catch((error: unknown) => {
      if (!ending.signal.aborted) set(now => ({ ...now, trouble: error instanceof Error ? error.message : String(error) }))
    })
    return () => ending.abort()
  }, [period])
  return read
}

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

export function UsagePage(): JSX.Element {
  const { query } = usePlace()
  const period = query.time ?? "all"
  const read = useJobs(period)
  const experts = new Map<string, Summary[]>()
  for (const job of read.jobs) {
    const key = job.expertKey ?? "unknown"
    experts.set(key, [...(experts.get(key) ?? []), job])
  }
  const rows = [...experts].map(([name, jobs]) => ({ name, jobs, usage: added(jobs.map(job => usageIn(job.usage))) }))
    .sort((a, b) => b.usage.totalTokens - a.usage.totalTokens)
  const names = rows.slice(0, 5).map(row => row.name)
  return (
    <main>
      <div class="head"><h1>Usage</h1><span class="dim">{read.ready && `${count(read.jobs.length)} jobs${read.complete ? "" : ", the newest"}`}</span></div>
      <Period value={period} />
      <Trouble text={read.trouble} />
      {read.ready && (read.jobs.length === 0 ? <Empty>No job began in this time.</Empty> : (
        <>
          <Columns columns={columnsOf(read.jobs, period, names)} names={[...names, ...(rows.length > names.length ? ["others"] : [])]} title="Tokens over time, by expert" />
          <UsageTable title="Expert" counted="jobs" rows={rows.slice(0, 200).map(row => ({
            name: <Link to={path([], { expert: row.name === "unknown" ? null : row.name })}><Name text={row.name} /></Link>, number: row.jobs.length, usage: row.usage,
          }))} />
          <p class="dim">As the job, or its last checkpoint, says. A job's page has it by run and model.</p>
        </>
      ))}
    </main>
  )
}

function columnsOf(jobs: Summary[], period: string, names: string[]): { label: string; title: string; parts: { name: string; value: number }[] }[] {
  const times = jobs.map(job => job.startedAt)
  const newest = times.reduce((most, time) => Math.max(most, time), 0)
  const oldest = times.reduce((least, time) => Math.min(least, time), Infinity)
  const size = PERIODS.find(([name]) => name === period)?.[3] || Math.max(60_000, Math.ceil((newest - oldest) / 40))
  const first = Math.floor(oldest / size)
  const number = Math.min(120, Math.floor(newest / size) - first + 1)
  const columns = Array.from({ length: number }, () => new Map<string, number>())
  for (const job of jobs) {
    const column = columns[Math.min(number - 1, Math.floor(job.startedAt / size) - first)]
    const name = names.includes(job.expertKey ?? "unknown") ? job.expertKey ?? "unknown" : "others"
    column?.set(name, (column.get(name) ?? 0) + usageIn(job.usage).totalTokens)
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

type Found = { job: Summary; event: Value }
const ERROR_JOBS = 100

export function ErrorsPage(): JSX.Element {
  const { query } = usePlace()
  const period = query.time ?? "all"
  const read = useJobs(period)
  const now = useNow(10_000)
  const failed = read.jobs.filter(job => errorsOf(job) > 0 || job.status?.startsWith("stoppedBy"))
  const [events, setEvents] = useState<Found[]>([])
  useEffect(() => {
    const ending = new AbortController()
    const load = async (): Promise<void> => {
      const found: Found[] = []
      for (const job of failed.slice(0, ERROR_JOBS)) {
        const runs: Page<Summary> = await json(api(["jobs", job.jobId, "runs"], { limit: 200 }), ending.signal)
        for (const run of runs.items.filter(one => errorsOf(one) > 0)) {
          const page: Page<Value> = await json(api(["jobs", job.jobId, "runs", run.runId ?? "", "events"], { types: "stopRunByError,retry", limit: 20, order: "newest" }), ending.signal)
          found.push(...page.items.map(event => ({ job, event })))
        }
        setEvents([...found])
      }
    }
    setEvents([])
    load().catch(() => { /* the list of jobs stands all the same */ })
    return () => ending.abort()
  }, [read.jobs])
  const view = query.view ?? "events"
  return (
    <main>
      <div class="head"><h1>Errors</h1><span class="dim">{read.ready && `${count(failed.length)} of ${count(read.jobs.length)} jobs${read.complete ? "" : ", the newest"}`}</span></div>
      <Period value={period} />
      <Trouble text={read.trouble} />
      <Tabs current={view} tabs={[
        { name: "events", label: "What happened", to: path(["errors"], { time: query.time }) },
        { name: "jobs", label: `Jobs ${count(failed.length)}`, to: path(["errors"], { time: query.time, view: "jobs" }) },
      ]} />
      {read.ready && failed.length === 0 && <Empty>Nothing went wrong.</Empty>}
      <ol class="list problems">
        {view === "events" && events.map(({ job, event }) => (
          <li key={`${job.jobId}/${textIn(event, "id")}`}>
            <span class={`status ${event.type === "retry" ? "warn" : "bad"}`}><i aria-hidden="true">{event.type === "retry" ? "!" : "✕"}</i>{event.type === "retry" ? "retry" : "error"}</span>
            <div class="grow">
              <Text text={errorText(objectIn(event, "error")) || textIn(event, "reason") || errorText(objectIn(event, "checkpoint", "error")) || "no text"} folded={600} />
              <small class="dim"><When ms={Number(event.timestamp)} />, <Link to={path(["jobs", job.jobId], { tab: "errors" })}><Name text={job.jobId} code /></Link>, step {count(event.stepNumber)} of <Name text={textIn(event, "expertKey")} /></small>
            </div>
          </li>
        ))}
        {view === "jobs" && failed.slice(0, 500).map(job => (
          <li key={job.jobId}>
            <Status status={job.status} lastAt={job.lastEventAt} now={now} />
            <Link to={path(["jobs", job.jobId], { tab: "errors" })}><Name text={job.jobId} code /></Link>
            <span class="grow clip dim">{line(job.expertKey ?? "", 80)}</span><span class="num">{count(errorsOf(job))}</span>
          </li>
        ))}
      </ol>
    </main>
  )
}
