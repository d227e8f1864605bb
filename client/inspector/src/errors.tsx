// Errors: everything that went wrong in a period, over all jobs, by kind; and the jobs that it happened to.

import type { JSX } from "preact"
import { useEffect, useState } from "preact/hooks"
import { api, json, path, type Page, type Summary } from "./data"
import { count, line } from "./format"
import { counted, JOBS_MAX, PAGE, Period } from "./insights"
import { useListing } from "./listing"
import { Empty, KindMark, Link, Name, Status, Tabs, Text, Trouble, useNow, When } from "./parts"
import { usePlace } from "./router"
import { KINDS, STEPS_TEXT, type Kind } from "./shapes"
import { RUNS_MAX, RUNS_PAGE, type RunCalls } from "./tools"
import { errorText, numberIn, objectIn, textIn, type Value } from "./values"

const TYPES: { [type: string]: Kind } = { stopRunByError: "error", retry: "retry", stopRunByExceededMaxSteps: "steps" }
const RUNS_READ = 200
const EACH = 20
const SHOWN = 500

type Problem = { kind: Kind; text: string; at: number; job: string; run: string; step: number; expert: string; key: string }

function wentWrong(run: Summary): boolean {
  return Object.keys(TYPES).some(type => type in run.eventTypes)
}

/** What events tell of errors, of the newest runs that have such; null until they are read. */
function useEvents(runs: Summary[], ready: boolean): Problem[] | null {
  const [found, set] = useState<Problem[] | null>(null)
  useEffect(() => {
    set(null)
    if (!ready) return undefined
    const ending = new AbortController()
    const load = async (): Promise<void> => {
      const problems: Problem[] = []
      for (const { jobId, runId } of runs.slice(0, RUNS_READ)) {
        const query = { types: Object.keys(TYPES).join(","), limit: EACH, order: "newest" }
        const page: Page<Value> = await json(api(["jobs", jobId, "runs", runId ?? "", "events"], query), ending.signal)
        problems.push(...page.items.map(event => problemOf(jobId, runId ?? "", event)))
      }
      set(problems)
    }
    load().catch(() => {
      if (!ending.signal.aborted) set([]) // the list of jobs stands all the same
    })
    return () => ending.abort()
  }, [runs, ready])
  return found
}

function problemOf(job: string, run: string, event: Value): Problem {
  const kind = TYPES[textIn(event, "type")] ?? "error"
  const said = errorText(objectIn(event, "error")) || textIn(event, "reason") || errorText(objectIn(event, "checkpoint", "error"))
  return {
    kind, text: said || (kind === "steps" ? STEPS_TEXT : "no text"), at: numberIn(event, "timestamp"), job, run,
    step: numberIn(event, "stepNumber"), expert: textIn(event, "expertKey"), key: `${job}/${run}/${textIn(event, "id")}`,
  }
}

function failedCalls(rows: RunCalls[]): Problem[] {
  return rows.flatMap(run => run.calls.map(call => ({
    kind: "tool" as const, text: `${call.name}: ${call.error ?? ""}`, at: call.at + (call.tookMs ?? 0), job: run.jobId,
    run: run.runId, step: call.step, expert: run.expertKey ?? "", key: `${run.jobId}/${run.runId}/${call.id}`,
  })))
}

export function ErrorsPage(): JSX.Element {
  const { query } = usePlace()
  const period = query.time ?? "all"
  const jobs = useListing<Summary>("jobs", period, PAGE, JOBS_MAX)
  const runs = useListing<Summary>("runs", period, PAGE, JOBS_MAX)
  const tools = useListing<RunCalls>("tools", period, RUNS_PAGE, RUNS_MAX, { only: "failed" })
  const now = useNow(10_000)
  const [wrong, setWrong] = useState<Summary[]>([])
  useEffect(() => setWrong(runs.items.filter(wentWrong)), [runs.items])
  const events = useEvents(wrong, runs.ready && wrong.length === runs.items.filter(wentWrong).length)
  const ready = jobs.ready && tools.ready && runs.ready && events !== null
  const all = ready ? [...events, ...failedCalls(tools.items)].sort((a, b) => b.at - a.at) : []
  const kind = query.kind !== undefined && Object.hasOwn(KINDS, query.kind) ? query.kind as Kind : null
  const shown = all.filter(one => kind === null || one.kind === kind)
  const affected = new Set([...all.map(one => one.job), ...wrong.map(run => run.jobId)])
  const failed = jobs.items.filter(job => affected.has(job.jobId) || job.status === "stoppedByError" || job.status === "stoppedByMaxSteps")
  const view = query.view ?? "events"
  const to = (more: { [name: string]: string | null }): string => path(["errors"], { time: query.time, ...more })
  return (
    <main>
      <div class="head"><h1>Errors</h1>
        <span class="dim" aria-live="polite">{ready ? `${count(all.length)} in ${count(failed.length)} of ${counted(jobs.items.length, "jobs", jobs)}` : counted(tools.items.length, "runs", { complete: false, ready: false })}</span>
      </div>
      <Period value={period} />
      <Trouble text={jobs.trouble || runs.trouble || tools.trouble} />
      <Tabs current={view === "jobs" ? "jobs" : kind ?? "events"} tabs={[
        { name: "events", label: `All ${ready ? count(all.length) : "…"}`, to: to({}) },
        ...(Object.keys(KINDS) as Kind[]).map(name => ({
          name, label: `${NAMES[name]} ${ready ? count(all.filter(one => one.kind === name).length) : "…"}`, to: to({ kind: name }),
        })),
        { name: "jobs", label: `Jobs ${ready ? count(failed.length) : "…"}`, to: to({ view: "jobs" }) },
      ]} />
      {ready && (shown.length > SHOWN || wrong.length > RUNS_READ || !tools.complete) && (
        <p class="dim about">
          {shown.length > SHOWN && `The newest ${count(SHOWN)} are listed. `}
          {wrong.length > RUNS_READ && `Errors, retries and the maximum of steps are those of the newest ${count(RUNS_READ)} of ${count(wrong.length)} runs with such. `}
          {!tools.complete && `Failed tools are those of the newest ${count(tools.items.length)} runs.`}
        </p>
      )}
      {!ready && <Empty>Looking…</Empty>}
      {ready && (view === "jobs" ? failed.length : shown.length) === 0 && <Empty>{all.length ? "Nothing of this kind." : "Nothing went wrong."}</Empty>}
      <ol class="list problems">
        {ready && view === "events" && shown.slice(0, SHOWN).map(one => (
          <li key={one.key}>
            <KindMark kind={one.kind} />
            <div class="grow">
              <Text text={one.text} folded={600} />
              <small class="dim"><When ms={one.at} />, <Link to={path(["jobs", one.job], { tab: "errors" })}><Name text={one.job} code /></Link>, <Link to={`${path(["jobs", one.job, "runs", one.run])}?step=${one.step}`}>step {count(one.step)} of <Name text={one.expert} /></Link></small>
            </div>
          </li>
        ))}
        {ready && view === "jobs" && failed.slice(0, SHOWN).map(job => (
          <li key={job.jobId}>
            <Status status={job.status} lastAt={job.lastEventAt} now={now} />
            <Link to={path(["jobs", job.jobId], { tab: "errors" })}><Name text={job.jobId} code /></Link>
            <span class="grow clip dim">{line(job.expertKey ?? "", 80)}</span><span class="num">{count(all.filter(one => one.job === job.jobId).length)}</span>
          </li>
        ))}
      </ol>
    </main>
  )
}

const NAMES: { [kind in Kind]: string } = { error: "Errors", retry: "Retries", tool: "Failed tools", steps: "Max steps" }
