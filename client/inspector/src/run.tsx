// A run: its steps, all its events, and the conversation as the model saw it.

import type { JSX } from "preact"
import { path } from "./data"
import { count, span } from "./format"
import { Conversation } from "./conversation"
import { Events } from "./eventlist"
import { Crumbs } from "./job"
import { useAsOf, useJob } from "./load"
import { Empty, Link, Name, Status, Tabs, Trouble, useNow } from "./parts"
import { usePlace } from "./router"
import { Steps } from "./steps"

export function RunPage({ id, run: runId }: { id: string; run: string }): JSX.Element {
  const { query } = usePlace()
  const position = query.at ? Number(query.at) : null
  const loaded = useJob(id, position !== null, runId)
  const now = useNow()
  const job = useAsOf(loaded, position)
  const run = job.runs.get(runId)
  const view = query.view ?? "steps"
  const to = (name: string): string => path(["jobs", id, "runs", runId], { view: name === "steps" ? null : name, at: query.at ?? null })
  if (!run) {
    return (
      <main><Crumbs id={id} more={<Name text={runId} code />} /><Trouble text={loaded.trouble} />
        <Empty>{loaded.state === "loading" ? "Loading…" : "Nothing of this run is stored."}</Empty>
      </main>
    )
  }
  const parent = run.delegatedBy === null ? undefined : job.runs.get(run.delegatedBy)
  const before = run.continues === null ? undefined : job.runs.get(run.continues)
  return (
    <main>
      <Crumbs id={id} more={<Name text={run.expert || runId} />} />
      <div class="head">
        <h1><Name text={run.expert || runId} /></h1>
        <Status status={run.status || null} lastAt={Number.isFinite(run.to) ? run.to : null} now={position === null ? now : run.to} />
        <span class="grow" />
        {loaded.state !== "done" && loaded.state !== "loading" && (
          <button type="button" class={`button live ${loaded.paused ? "" : "on"}`} aria-pressed={!loaded.paused} onClick={() => loaded.pause(!loaded.paused)}>
            <i aria-hidden="true" />{loaded.paused ? "Paused" : "Live"}
          </button>
        )}
      </div>
      <Trouble text={loaded.trouble} />
      <p class="dim about">
        Run <Name text={runId} code />
        {parent && <> for <Link to={path(["jobs", id, "runs", parent.id])}><Name text={parent.expert || parent.id} /></Link></>}
        {before && <> goes on for <Link to={path(["jobs", id, "runs", before.id])}>the run before it</Link></>}
        {run.model && <>, model <Name text={run.model} /></>}
        , {count(run.events)} events in {span(run.to - run.from)}
        {run.own && <>, {count(run.own.totalTokens)} tokens</>}
      </p>
      <Tabs current={view} tabs={[
        { name: "steps", label: `Steps ${count(run.steps.size)}`, to: to("steps") },
        { name: "events", label: `Events ${count(run.events)}`, to: to("events") },
        { name: "conversation", label: "Conversation", to: to("conversation") },
      ]} />
      {view === "steps" && <Steps job={job} run={run} wanted={query.step ? Number(query.step) : null} follows={position === null && !loaded.paused && !run.ended} />}
      {view === "events" && <Events run={run} type={query.type ?? ""} />}
      {view === "conversation" && <Conversation run={run} step={query.step ? Number(query.step) : null} />}
    </main>
  )
}
