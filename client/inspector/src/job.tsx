// A job: its waterfall, runs and delegations, usage, tools, errors; live, and as it was at any position.

import type { JSX } from "preact"
import { useMemo } from "preact/hooks"
import { api, exported, path } from "./data"
import { clock, count, line, short, span } from "./format"
import { Graph } from "./graph"
import { useAsOf, useJob, type Loaded } from "./load"
import type { Job } from "./model"
import { Ago, Empty, KindMark, Link, Name, Status, Tabs, Text, Trouble, When, useNow } from "./parts"
import { change, usePlace } from "./router"
import type { Run } from "./shapes"
import { added, numberIn, textIn, USAGE_FIELDS, usageIn, type Usage } from "./values"
import { Waterfall } from "./waterfall"
import { Steps } from "./plots"
import { callsOfJob, Tools } from "./tools"

export function JobPage({ id }: { id: string }): JSX.Element {
  const { query } = usePlace()
  const position = query.at ? Number(query.at) : null
  const loaded = useJob(id, position !== null)
  const now = useNow()
  const job = useAsOf(loaded, position)
  const tab = query.tab ?? "timeline"
  const isHere = loaded.state !== "loading" || job.runs.size > 0
  const base = path(["jobs", id])
  const to = (name: string): string => path(["jobs", id], { tab: name === "timeline" ? null : name, at: query.at ?? null })
  const left = (run: string): number => (position === null ? loaded.left.count(run) : 0)
  const then = position === null ? now : Math.max(job.to, 0)
  if (loaded.missing) return <main><Crumbs id={id} /><Empty>Nothing of this job is stored.</Empty></main>
  return (
    <main>
      <Crumbs id={id} />
      <div class="head">
        <h1><Name text={id} code /></h1>
        <Status status={job.status || null} lastAt={Number.isFinite(job.to) ? job.to : null} now={then} />
        <span class="grow" />
        <LiveSwitch loaded={loaded} position={position} />
        {!exported && <a class="button" href={api(["jobs", id, "export"])} download>Export as HTML</a>}
      </div>
      <Trouble text={loaded.trouble || (job.deleted ? "This job was deleted. What is shown here is no longer stored." : "")} />
      <Figures job={job} now={then} left={position === null ? loaded.left.total : 0} />
      <TimeTravel loaded={loaded} position={position} />
      <Tabs current={tab} tabs={[
        { name: "timeline", label: "Timeline", to: position === null ? base : to("timeline") },
        { name: "graph", label: "Graph", to: to("graph") },
        { name: "runs", label: `Runs ${count(job.runs.size)}`, to: to("runs") },
        { name: "usage", label: "Usage", to: to("usage") },
        { name: "tools", label: `Tools ${count(job.calls.length)}`, to: to("tools") },
        { name: "errors", label: <>Errors <b class={job.problems.length ? "bad" : ""}>{count(job.problems.length)}</b></>, to: to("errors") },
        { name: "checkpoints", label: `Checkpoints ${count(job.checkpoints.length)}`, to: to("checkpoints") },
      ]} />
      {!isHere && <Empty>Loading…</Empty>}
      {tab === "timeline" && job.runs.size > 0 && (
        <>
          <Waterfall job={job} version={position ?? loaded.version} now={then} />
          <Answer job={job} />
        </>
      )}
      {tab === "graph" && job.runs.size > 0 && <Graph job={job} version={position ?? loaded.version} now={then} />}
      {tab === "runs" && isHere && <Runs job={job} now={then} version={position ?? loaded.version} left={left} />}
      {tab === "usage" && isHere && <UsageView job={job} />}
      {tab === "tools" && isHere && <Tools calls={callsOfJob(id, job.calls)} grows={!isEnded(job.status)} />}
      {tab === "errors" && isHere && <Problems job={job} />}
      {tab === "checkpoints" && isHere && <Checkpoints job={job} />}
    </main>
  )
}

function isEnded(status: string): boolean {
  return status !== "" && status !== "running" && status !== "proceeding" && status !== "init"
}

export function Crumbs({ id, more }: { id: string; more?: JSX.Element }): JSX.Element {
  return (
    <nav class="crumbs" aria-label="You are here">
      {!exported && <><Link to="/">Jobs</Link> / </>}
      {more ? <><Link to={path(["jobs", id])}><Name text={id} code /></Link> / {more}</> : <Name text={id} code />}
    </nav>
  )
}

function LiveSwitch({ loaded, position }: { loaded: ReturnType<typeof useJob>; position: number | null }): JSX.Element | null {
  if (loaded.state === "done") return <span class="pill">exported</span>
  if (position !== null) return <button type="button" class="button" onClick={() => change({ at: null })}>Back to now</button>
  if (loaded.state === "loading") return <button type="button" class="button live" disabled><i aria-hidden="true" />Live</button>
  return (
    <button type="button" class={`button live ${loaded.paused ? "" : "on"}`} aria-pressed={!loaded.paused}
      onClick={() => loaded.pause(!loaded.paused)} title={loaded.paused ? "Show what has come meanwhile, and go on" : "Hold the screen still"}>
      <i aria-hidden="true" />{loaded.paused ? "Paused" : "Live"}
    </button>
  )
}

function Figures({ job, now, left }: { job: Job; now: number; left: number }): JSX.Element {
  const usage = job.usage
  const roots = [...job.runs.values()]
  const steps = roots.reduce((sum, run) => sum + run.bars.filter(bar => bar.kind === "generation" && bar.label !== "result").length, 0)
  const context = Math.max(0, ...roots.map(run => run.context ?? 0))
  const began = job.value ? numberIn(job.value, "startedAt") : job.from
  return (
    <dl class="figures">
      <div><dt>Expert</dt><dd><Name text={job.expert || "–"} /></dd></div>
      <div><dt>Started</dt><dd>{Number.isFinite(began) && began > 0 ? <Ago ms={began} now={now} /> : "–"}</dd></div>
      <div><dt>Took</dt><dd>{Number.isFinite(job.from) ? span(job.to - job.from) : "–"}</dd></div>
      <div><dt>Steps</dt><dd>{count(steps)}</dd></div>
      <div><dt>Tokens</dt><dd title={`${count(usage.inputTokens)} in, ${count(usage.outputTokens)} out`}>{short(usage.totalTokens)}</dd></div>
      <div><dt>Context</dt><dd>{context ? `${(context * 100).toFixed(1)} %` : "–"}</dd></div>
      <div><dt>Records</dt><dd>{count(job.records + left)}</dd></div>
    </dl>
  )
}

function TimeTravel({ loaded, position }: { loaded: Loaded; position: number | null }): JSX.Element | null {
  const { log } = loaded
  const first = log[0]
  const last = log[log.length - 1]
  if (loaded.state !== "loading" && (!first || first === last)) return null
  const index = position === null ? log.length - 1 : Math.max(0, indexOf(log, position))
  const record = log[index] ?? last
  const move = (to: number): void => {
    const target = log[Math.max(0, Math.min(log.length - 1, to))]
    change({ at: !target || to >= log.length - 1 ? null : String(target.position) })
  }
  // While it loads it takes its room, so that what is below it stays where it is.
  return (
    <div class={`travel ${position === null ? "" : "past"} ${record && first !== last ? "" : "later"}`}>
      <label>
        <span>{position === null ? "Now" : "As it was"}</span>
        <input type="range" min={0} max={Math.max(0, log.length - 1)} value={index} aria-valuetext={`position ${record?.position ?? 0}`}
          onInput={event => move(Number(event.currentTarget.value))} />
      </label>
      <button type="button" title="One record back" aria-label="One record back" onClick={() => move(index - 1)}>‹</button>
      <button type="button" title="One record on" aria-label="One record on" disabled={position === null} onClick={() => move(index + 1)}>›</button>
      <Link to={path(["records", String(record?.position ?? 0)])} class="code">#{record?.position ?? 0}</Link>
      <span class="dim">{record && `${line(textIn(record.value, "type") || (NOUNS[record.op] ?? record.op), 40)}, ${clock(numberIn(record.value, "timestamp") || record.time)}`}&nbsp;</span>
    </div>
  )
}

const NOUNS: { [op: string]: string } = { storeJob: "job", storeCheckpoint: "checkpoint", storeRunSetting: "run setting", deleteRun: "deletion of a run" }

function indexOf(log: Loaded["log"], position: number): number {
  let low = 0
  let high = log.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if ((log[middle]?.position ?? 0) <= position) low = middle
    else high = middle - 1
  }
  return low
}

/** What was asked, and what came out. */
function Answer({ job }: { job: Job }): JSX.Element {
  const roots = [...job.runs.values()].filter(run => run.delegatedBy === null)
  const asked = roots.find(run => run.query)?.query ?? ""
  const last = roots[roots.length - 1]
  const results = last ? [...last.steps.values()].map(step => step.result).filter(Boolean) : []
  return (
    <div class="pair">
      {asked && <section class="card"><h2>Asked</h2><Text text={asked} /></section>}
      {results.length > 0 && <section class="card"><h2>Result</h2><Text text={results[results.length - 1] ?? ""} /></section>}
    </div>
  )
}

function Runs({ job, now, version, left }: { job: Job; now: number; version: number; left: (run: string) => number }): JSX.Element {
  const lanes = useMemo(() => job.lanes(), [job, version])
  return (
    <div class="scroll">
      <table>
        <thead><tr><th>Run</th><th>Status</th><th>Began</th><th class="num">Took</th><th class="num">Steps</th><th class="num">Events</th><th class="num">Tokens</th><th class="num">Context</th></tr></thead>
        <tbody>
          {lanes.map(({ run, depth }) => (
            <tr key={run.id}>
              <td style={{ paddingLeft: `${12 + Math.min(depth, 10) * 22}px` }}>
                <span class="branch" aria-hidden="true">{run.continues !== null ? "↳ " : depth ? "└ " : ""}</span>
                <Link to={path(["jobs", job.id, "runs", run.id])}><Name text={run.expert || run.id} /></Link>
                <small class="dim"> <Name text={run.id} code />{run.continues !== null && ", goes on after its delegates"}</small>
                {run.error && <div class="bad"><Text text={run.error} folded={200} /></div>}
              </td>
              <td><Status status={run.status || null} lastAt={Number.isFinite(run.to) ? run.to : null} now={now} /></td>
              <td>{clock(run.from)}</td>
              <td class="num">{span(run.to - run.from)}</td>
              <td class="num">{count(run.steps.size)}</td>
              <td class="num">{count(run.events + left(run.id))}</td>
              <td class="num">{count(run.own?.totalTokens ?? null)}</td>
              <td class="num">{run.context === null ? "" : `${(run.context * 100).toFixed(1)} %`}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

const FIELD_NAMES: { [name in (typeof USAGE_FIELDS)[number]]: string } = {
  inputTokens: "input", outputTokens: "output", reasoningTokens: "reasoning", cachedInputTokens: "cached", totalTokens: "total",
}

/** A row counts so many runs, or whatever `counted` names. */
export function UsageTable({ title, rows, counted = "runs" }: { title: string; rows: { name: JSX.Element | string; number?: number; usage: Usage }[]; counted?: string }): JSX.Element {
  const most = Math.max(1, ...rows.map(row => row.usage.totalTokens))
  return (
    <div class="scroll">
      <table>
        <thead><tr><th>{title}</th>{rows[0]?.number !== undefined && <th class="num">{counted}</th>}{USAGE_FIELDS.map(name => <th key={name} class="num">{FIELD_NAMES[name]}</th>)}<th class="share"><span class="hidden">share</span></th></tr></thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={index}>
              <td>{row.name}</td>
              {row.number !== undefined && <td class="num">{count(row.number)}</td>}
              {USAGE_FIELDS.map(name => <td key={name} class="num">{count(row.usage[name])}</td>)}
              <td class="share"><i style={{ width: `${(row.usage.totalTokens / most) * 100}%` }} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function UsageView({ job }: { job: Job }): JSX.Element {
  const runs = job.lanes().map(lane => lane.run)
  const grouped = (key: (run: Run) => string): { name: string; number: number; usage: Usage }[] => {
    const groups = new Map<string, Run[]>()
    for (const run of runs) groups.set(key(run), [...(groups.get(key(run)) ?? []), run])
    return [...groups].map(([name, group]) => ({
      name: line(name, 80), number: group.length, usage: added(group.map(run => run.own ?? usageIn({}))),
    }))
  }
  if (!runs.some(run => run.own)) return <Empty>No checkpoint tells of usage yet.</Empty>
  return (
    <>
      <Steps job={job} />
      <UsageTable title="Expert" rows={grouped(run => run.expert || "?")} />
      {runs.some(run => run.model) && <UsageTable title="Model" rows={grouped(run => run.model || "unknown")} />}
      <UsageTable title="Run" rows={runs.map(run => ({
        name: <Link to={path(["jobs", job.id, "runs", run.id])}><Name text={run.id} code /></Link>, usage: run.own ?? usageIn({}),
      }))} />
      <p class="dim">A run that goes on after its delegates begins with their sum; each row counts only what the run used itself.</p>
    </>
  )
}

function Problems({ job }: { job: Job }): JSX.Element {
  if (!job.problems.length) return <Empty>Nothing went wrong.</Empty>
  return (
    <ol class="list problems">
      {job.problems.map(problem => (
        <li key={`${problem.position}/${problem.kind}/${problem.text}`}>
          <KindMark kind={problem.kind} />
          <div class="grow"><Text text={problem.text} folded={600} />
            <small class="dim">
              {clock(problem.at)}, <Link to={`${path(["jobs", job.id, "runs", problem.run])}?step=${problem.step}`}>step {problem.step} of <Name text={job.runs.get(problem.run)?.expert ?? problem.run} /></Link>, <Link to={path(["records", String(problem.position)])}>#{problem.position}</Link>
            </small>
          </div>
        </li>
      ))}
    </ol>
  )
}

function Checkpoints({ job }: { job: Job }): JSX.Element {
  const { query } = usePlace()
  if (!job.checkpoints.length) return <Empty>No checkpoint is stored.</Empty>
  const previous = (index: number): string | null => {
    const row = job.checkpoints[index]
    for (let at = index - 1; at >= 0; at--) if (job.checkpoints[at]?.run === row?.run) return job.checkpoints[at]?.id ?? null
    return job.checkpoints[index - 1]?.id ?? null
  }
  return (
    <div class="scroll">
      <table>
        <thead><tr><th>Checkpoint</th><th>Expert</th><th class="num">Step</th><th>Status</th><th>Stored</th><th class="num">Tokens</th><th class="num">Context</th><th><span class="hidden">difference</span></th></tr></thead>
        <tbody>
          {job.checkpoints.map((row, index) => {
            const before = previous(index)
            return (
              <tr key={row.id}>
                <td><Link to={path(["records", String(row.position)])}><Name text={row.id} code /></Link></td>
                <td><Name text={job.runs.get(row.run)?.expert ?? row.run} /></td>
                <td class="num">{count(row.step)}</td>
                <td>{line(row.status, 40)}</td>
                <td><When ms={row.stored} /></td>
                <td class="num">{count(row.usage.totalTokens)}</td>
                <td class="num">{row.context === null ? "" : `${(row.context * 100).toFixed(1)} %`}</td>
                <td>{before && !exported && <Link to={path(["jobs", job.id, "diff"], { from: before, to: row.id, at: query.at ?? null })}>what changed</Link>}</td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}
