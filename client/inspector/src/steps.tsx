// The steps of a run as cards: reasoning, tool calls beside their results, problems.

import type { JSX } from "preact"
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { exported, path } from "./data"
import { clock, count, line, short, span } from "./format"
import type { Job } from "./model"
import { Arguments, Link, Name, Text } from "./parts"
import { joined, type Kind, type Run, type Step, type ToolCall } from "./shapes"
import { objectsIn, partsText } from "./values"

const CARDS = 40

const TITLES: { [kind in Kind]: string } = { error: "Error", retry: "Retry", tool: "Tool failed", steps: "Max steps" }

export function Steps({ job, run, wanted, follows }: { job: Job; run: Run; wanted: number | null; follows: boolean }): JSX.Element {
  const steps = [...run.steps.values()].sort((a, b) => a.number - b.number)
  const index = wanted === null ? 0 : steps.findIndex(step => step.number === wanted)
  const [most, setMost] = useState(Math.max(CARDS, index + 10))
  const shown = steps.slice(0, follows ? Infinity : most)
  const scrolled = useRef(false)
  useLayoutEffect(() => {
    if (wanted === null || scrolled.current) return
    const card = document.getElementById(`step-${wanted}`)
    if (!card) return
    scrolled.current = true
    card.scrollIntoView({ block: "start" })
  })
  return (
    <>
      {run.query && <section class="card asked"><h2>Asked</h2><Text text={run.query} /></section>}
      {shown.map(step => <Card key={step.number} job={job} run={run} step={step} marked={step.number === wanted} />)}
      {steps.length > shown.length && <button type="button" class="button wide" onClick={() => setMost(most + CARDS)}>Show {count(Math.min(CARDS, steps.length - shown.length))} more steps of {count(steps.length)}</button>}
      {follows && <Newest />}
    </>
  )
}

/** Stays at the end of the page while it grows, until the reader scrolls up; then offers the way back. */
function Newest(): JSX.Element | null {
  const [away, setAway] = useState(true)
  const follows = useRef(false)
  useLayoutEffect(() => {
    if (follows.current) scrollTo(0, document.documentElement.scrollHeight)
  })
  useEffect(() => {
    const look = (): void => {
      const left = document.documentElement.scrollHeight - innerHeight - scrollY
      follows.current = left < 80 && scrollY > 0
      setAway(left >= 80)
    }
    look()
    addEventListener("scroll", look, { passive: true })
    return () => removeEventListener("scroll", look)
  }, [])
  if (!away) return null
  return (
    <button type="button" class="newest" onClick={() => {
      follows.current = true
      scrollTo(0, document.documentElement.scrollHeight)
    }}>Jump to the newest ↓</button>
  )
}

function Card({ job, run, step, marked }: { job: Job; run: Run; step: Step; marked: boolean }): JSX.Element {
  const generation = step.generation
  const streams = step.items.filter(item => item.deltas)
  const reasoning = step.reasoning || joined(streams.find(item => item.type === "streamReasoning"))
  const result = step.result || joined(streams.find(item => item.type === "streamRunResult"))
  const delegated = [...job.runs.values()].filter(one => one.delegatedBy === run.id && step.calls.some(call => call.id === one.delegatedCall))
  return (
    <article class={`card step ${marked ? "marked" : ""}`} id={`step-${step.number}`} aria-label={`Step ${step.number}`}>
      <header>
        <h2>Step {count(step.number)}</h2>
        <span class="dim">{clock(step.from)}</span>
        <span class="grow" />
        <ul class="facts">
          <li title="Duration">{span(step.to - step.from)}</li>
          {generation && generation.first !== undefined && <li title="Until the first token">first token {span(generation.first - generation.from)}</li>}
          {step.usage && <li title={`${count(step.usage.inputTokens)} in, ${count(step.usage.outputTokens)} out`}>{short(step.usage.totalTokens)} tokens</li>}
          {step.context !== null && <li title="Context used">context {(step.context * 100).toFixed(1)} %</li>}
        </ul>
      </header>
      {reasoning && <section class="reasoning"><h3>Reasoning</h3><Text text={reasoning} folded={600} /></section>}
      {step.calls.map(call => <Call key={call.id || call.position} call={call} runs={delegated.filter(one => one.delegatedCall === call.id)} job={job} />)}
      {step.problems.filter(problem => problem.kind !== "tool").map(problem => (
        <p key={problem.position} class={`problem ${problem.kind}`}>
          <b>{TITLES[problem.kind]}</b> <Text text={problem.text} folded={600} />
          <Link to={path(["records", String(problem.position)])}>#{problem.position}</Link>
        </p>
      ))}
      {result && <section class="result"><h3>Result</h3><Text text={result} folded={2000} /></section>}
      <footer class="dim">
        {count(step.items.reduce((sum, item) => sum + (item.deltas?.length ?? 1), 0))} events
        {step.items[0] && <>, from <Link to={path(["records", String(step.items[0].position)])}>#{step.items[0].position}</Link></>}
        {step.generationPosition !== null && !exported && <>, <Link to={path(["jobs", job.id, "runs", run.id], { view: "conversation", step: step.number })}>what the model saw</Link></>}
      </footer>
    </article>
  )
}

function Call({ call, runs, job }: { call: ToolCall; runs: Run[]; job: Job }): JSX.Element {
  const result = call.result ? partsText(objectsIn(call.result, "result")) : ""
  return (
    <section class={`call ${call.failed ? "failed" : ""}`}>
      <div>
        <h3><Name text={call.name} code /> {call.skill && <small class="dim"><Name text={call.skill} /></small>}</h3>
        <Arguments value={call.args} />
        {runs.map(run => (
          <p key={run.id}>→ <Link to={path(["jobs", job.id, "runs", run.id])}><Name text={run.expert || run.id} /></Link> <small class="dim">{line(run.status, 40)}</small></p>
        ))}
      </div>
      <div>
        <h3>
          {call.result === undefined ? <span class="dim">{runs.length ? "delegated" : "no result yet"}</span>
            : call.failed ? <span class="bad">✕ failed</span> : <span class="good">✓ result</span>}
          {call.resultAt !== undefined && <small class="dim"> {span(call.resultAt - call.at)}</small>}
        </h3>
        {result && <Text text={result} mono folded={800} />}
      </div>
    </section>
  )
}
