// Tools: how often they were called, how long they took, what failed; of a job, and over jobs.

import type { JSX } from "preact"
import { useEffect, useState } from "preact/hooks"
import { api, json, path, type RecordPage } from "./data"
import { bytes, byteLength, count, line, span } from "./format"
import { Period, useJobs } from "./insights"
import { Job } from "./model"
import { Empty, Link, Name, Trouble } from "./parts"
import { usePlace } from "./router"
import type { ToolCall } from "./shapes"
import { objectsIn, partsText } from "./values"

export type Called = { job: string; call: ToolCall }

const JOBS_MAX = 100
const TYPES = "callTools,callInteractiveTool,callDelegate,resolveToolResults,attemptCompletion"
const SLOWEST = 20

function sizeOf({ call }: Called): number {
  return call.result ? byteLength(partsText(objectsIn(call.result, "result"))) : 0
}

function tookOf({ call }: Called): number {
  return (call.resultAt ?? call.at) - call.at
}

function quantile(sorted: number[], part: number): number | null {
  return sorted.length ? (sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] ?? null) : null
}

/** A row for each tool, and the calls that took longest. */
export function Tools({ calls }: { calls: Called[] }): JSX.Element {
  const groups = new Map<string, Called[]>()
  for (const one of calls) {
    const group = groups.get(one.call.name)
    if (group) group.push(one)
    else groups.set(one.call.name, [one])
  }
  const rows = [...groups].sort((a, b) => b[1].length - a[1].length)
  if (!rows.length) return <Empty>No tool was called.</Empty>
  return (
    <>
      <div class="scroll">
        <table>
          <thead><tr><th>Tool</th><th class="num">calls</th><th class="num">failed</th><th class="num">p50</th><th class="num">p95</th><th class="num">largest result</th><th class="num">results</th></tr></thead>
          <tbody>{rows.map(([name, group]) => <Row key={name} name={name} calls={group} />)}</tbody>
        </table>
      </div>
      <h2>Slowest calls</h2>
      <ol class="list">
        {[...calls].sort((a, b) => tookOf(b) - tookOf(a)).slice(0, SLOWEST).map(({ job, call }) => (
          <li key={`${job}/${call.run}/${call.id}`}>
            <Link to={`${path(["jobs", job, "runs", call.run])}?step=${call.step}`}><Name text={call.name} code /></Link>
            <span class="grow clip dim">{line(JSON.stringify(call.args ?? {}), 160)}</span>
            <span class={call.failed ? "bad" : "dim"}>{call.resultAt === undefined ? "no result" : span(call.resultAt - call.at)}</span>
          </li>
        ))}
      </ol>
    </>
  )
}

function Row({ name, calls }: { name: string; calls: Called[] }): JSX.Element {
  const took = calls.filter(({ call }) => call.resultAt !== undefined).map(tookOf).sort((a, b) => a - b)
  const failed = calls.filter(({ call }) => call.failed).length
  const sizes = calls.map(sizeOf)
  return (
    <tr>
      <td><Name text={name} code /> <small class="dim"><Name text={calls[0]?.call.skill ?? ""} /></small></td>
      <td class="num">{count(calls.length)}</td>
      <td class={`num ${failed ? "bad" : "dim"}`}>{failed ? count(failed) : "–"}</td>
      <td class="num">{span(quantile(took, 0.5))}</td>
      <td class="num">{span(quantile(took, 0.95))}</td>
      <td class="num">{bytes(sizes.reduce((most, size) => Math.max(most, size), 0))}</td>
      <td class="num">{bytes(sizes.reduce((sum, size) => sum + size, 0))}</td>
    </tr>
  )
}

/** The tools that the newest jobs of a period called. */
export function ToolsPage(): JSX.Element {
  const { query } = usePlace()
  const period = query.time ?? "all"
  const read = useJobs(period)
  const [calls, set] = useState<Called[]>([])
  const [looked, setLooked] = useState(0)
  const [trouble, setTrouble] = useState("")
  const all = read.jobs.filter(job => TYPES.split(",").some(type => type in job.eventTypes))
  const jobs = all.slice(0, JOBS_MAX)
  useEffect(() => {
    const ending = new AbortController()
    const load = async (): Promise<void> => {
      const found: Called[] = []
      for (const [index, { jobId }] of jobs.entries()) {
        found.push(...await callsOf(jobId, ending.signal))
        set([...found])
        setLooked(index + 1)
      }
    }
    set([])
    setLooked(0)
    setTrouble("")
    load().catch((error: unknown) => {
      if (!ending.signal.aborted) setTrouble(error instanceof Error ? error.message : String(error))
    })
    return () => ending.abort()
  }, [read.jobs])
  const ready = read.ready && looked === jobs.length
  return (
    <main>
      <div class="head">
        <h1>Tools</h1>
        <span class="dim" aria-live="polite">{read.ready && `${count(calls.length)} calls of ${count(looked)} jobs${all.length > JOBS_MAX || !read.complete ? ", the newest" : ""}`}</span>
      </div>
      <Period value={period} />
      <Trouble text={read.trouble || trouble} />
      {calls.length > 0 ? <Tools calls={calls} /> : ready && <Empty>No job of this time called a tool.</Empty>}
    </main>
  )
}

/** The calls of a job, with their results. */
async function callsOf(id: string, signal: AbortSignal): Promise<Called[]> {
  const job = new Job(id)
  let after = 0
  for (;;) {
    const page: RecordPage = await json(api(["records"], { job: id, types: TYPES, ops: "storeEvent", after, limit: 10_000 }), signal)
    for (const record of page.items) job.apply(record)
    if (page.end) return job.calls.map(call => ({ job: id, call }))
    after = page.next
  }
}
