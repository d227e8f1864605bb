// Tools: how often they were called, how long they took, what failed; of a job, and over jobs.

import type { JSX } from "preact"
import { path } from "./data"
import { bytes, byteLength, count, line, span } from "./format"
import { counted, Period } from "./insights"
import { useListing } from "./listing"
import { Empty, Link, Name, Trouble } from "./parts"
import { usePlace } from "./router"
import type { ToolCall } from "./shapes"
import { objectsIn, partsText } from "./values"

/** A call of a tool, as the gateway counts it. */
export type Call = {
  id: string
  name: string
  skill: string
  step: number
  at: number
  /** Milliseconds until its result; null without one. */
  tookMs: number | null
  failed: boolean
  resultBytes: number
  args: string
  error: string | null
}
/** The calls of a run; `cut` if there are more than are counted. */
export type RunCalls = { jobId: string; runId: string; expertKey: string | null; startedAt: number; cut: boolean; calls: Call[] }
type Called = { job: string; run: string; call: Call }

export const RUNS_MAX = 2000
export const RUNS_PAGE = 100
const SLOWEST = 20

/** The calls of a job that the page has, in the same form. */
export function callsOfJob(job: string, calls: ToolCall[]): Called[] {
  return calls.map(call => ({
    job, run: call.run, call: {
      id: call.id, name: call.name, skill: call.skill, step: call.step, at: call.at,
      tookMs: call.resultAt === undefined ? null : call.resultAt - call.at, failed: call.failed === true,
      resultBytes: call.result ? byteLength(partsText(objectsIn(call.result, "result"))) : 0,
      args: line(JSON.stringify(call.args ?? {}), 160), error: null,
    },
  }))
}

function quantile(sorted: number[], part: number): number | null {
  return sorted.length ? (sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] ?? null) : null
}

/** A row for each tool, and the calls that took longest; while it `grows` there is room for some more tools. */
export function Tools({ calls, grows = false }: { calls: Called[]; grows?: boolean }): JSX.Element {
  const groups = new Map<string, Call[]>()
  for (const { call } of calls) {
    const group = groups.get(call.name)
    if (group) group.push(call)
    else groups.set(call.name, [call])
  }
  const rows = [...groups].sort((a, b) => b[1].length - a[1].length)
  if (!rows.length) return <Empty>No tool was called.</Empty>
  return (
    <>
      <div class={`scroll ${grows ? "grows" : ""}`}>
        <table>
          <thead><tr><th>Tool</th><th class="num">calls</th><th class="num">failed</th><th class="num">p50</th><th class="num">p95</th><th class="num">largest result</th><th class="num">results</th></tr></thead>
          <tbody>{rows.slice(0, 500).map(([name, group]) => <Row key={name} name={name} calls={group} />)}</tbody>
        </table>
      </div>
      <h2>Slowest calls</h2>
      <ol class="list">
        {[...calls].sort((a, b) => (b.call.tookMs ?? 0) - (a.call.tookMs ?? 0)).slice(0, SLOWEST).map(({ job, run, call }, index) => (
          <li key={index}>
            <Link to={`${path(["jobs", job, "runs", run])}?step=${call.step}`}><Name text={call.name} code /></Link>
            <span class="grow clip dim">{line(call.args, 160)}</span>
            <span class={call.failed ? "bad" : "dim"}>{call.tookMs === null ? "no result" : span(call.tookMs)}</span>
          </li>
        ))}
      </ol>
    </>
  )
}

function Row({ name, calls }: { name: string; calls: Call[] }): JSX.Element {
  const took = calls.flatMap(call => call.tookMs ?? []).sort((a, b) => a - b)
  const failed = calls.filter(call => call.failed).length
  return (
    <tr>
      <td><Name text={name} code /> <small class="dim"><Name text={calls[0]?.skill ?? ""} /></small></td>
      <td class="num">{count(calls.length)}</td>
      <td class={`num ${failed ? "bad" : "dim"}`}>{failed ? count(failed) : "–"}</td>
      <td class="num">{span(quantile(took, 0.5))}</td>
      <td class="num">{span(quantile(took, 0.95))}</td>
      <td class="num">{bytes(calls.reduce((most, call) => Math.max(most, call.resultBytes), 0))}</td>
      <td class="num">{bytes(calls.reduce((sum, call) => sum + call.resultBytes, 0))}</td>
    </tr>
  )
}

/** The tools that the runs of a period called. */
export function ToolsPage(): JSX.Element {
  const { query } = usePlace()
  const period = query.time ?? "all"
  const read = useListing<RunCalls>("tools", period, RUNS_PAGE, RUNS_MAX)
  const calls = read.items.flatMap(run => run.calls.map(call => ({ job: run.jobId, run: run.runId, call })))
  const jobs = new Set(read.items.map(run => run.jobId)).size
  const cut = read.items.filter(run => run.cut).length
  return (
    <main>
      <div class="head">
        <h1>Tools</h1>
        <span class="dim" aria-live="polite">{read.items.length > 0 && `${count(calls.length)} calls of ${count(jobs)} jobs, `}{counted(read.items.length, "runs", read)}{cut > 0 && `; of ${count(cut)} the first calls`}</span>
      </div>
      <Period value={period} />
      <Trouble text={read.trouble} />
      {calls.length > 0 ? <Tools calls={calls} /> : <Empty>{read.ready ? "No run of this time called a tool." : "Counting…"}</Empty>}
    </main>
  )
}
