// A run: its steps as cards, all its events, and the conversation as the model saw it.

import type { JSX } from "preact"
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { exported, path, recordAt } from "./data"
import { bytes, clock, count, line, short, span } from "./format"
import { useAsOf, useJob } from "./load"
import type { Job } from "./model"
import { Empty, Link, Name, Status, Tabs, Text, Trouble, useNow } from "./parts"
import { usePlace, change } from "./router"
import type { Item, Run, Step, ToolCall } from "./shapes"
import { Crumbs } from "./job"
import { objectIn, objectsIn, partsText, table, textIn, type Value } from "./values"
import { Tree } from "./tree"

const CARDS = 40
const EVENTS = 300

export function RunPage({ id, run: runId }: { id: string; run: string }): JSX.Element {
  const { query } = usePlace()
  const loaded = useJob(id, true)
  const now = useNow()
  const position = query.at ? Number(query.at) : null
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

// --- steps -------------------------------------------------------------------------------------------

function Steps({ job, run, wanted, follows }: { job: Job; run: Run; wanted: number | null; follows: boolean }): JSX.Element {
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
          <b>{problem.kind === "retry" ? "Retry" : "Error"}</b> <Text text={problem.text} folded={600} />
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

function joined(stream: Item | undefined): string {
  return stream?.deltas?.map(delta => delta.text).join("") ?? ""
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

function Arguments({ value }: { value: unknown }): JSX.Element {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return <Text text={value === undefined ? "" : JSON.stringify(value)} mono folded={600} />
  }
  return (
    <dl class="arguments">
      {Object.entries(value).slice(0, 100).map(([name, item]) => (
        <div key={name}><dt><Name text={name} /></dt><dd><Text text={typeof item === "string" ? item : JSON.stringify(item) ?? ""} mono folded={400} /></dd></div>
      ))}
    </dl>
  )
}

// --- events ------------------------------------------------------------------------------------------

/** What an event says, in one line. */
export function wordsOf(item: Item): string {
  const { value, type } = item
  if (item.deltas) {
    const number = item.deltas.length
    return `${count(number)} ${number === 1 ? "delta" : "deltas"}, ${bytes(item.bytes ?? 0)}, ${span((item.until ?? item.at) - item.at)}`
  }
  const calls = objectsIn(value, "toolCalls")
  if (calls.length) return calls.map(call => `${textIn(call, "toolName")}(${line(JSON.stringify(call.args ?? {}), 120)})`).join("; ")
  const results = [...objectsIn(value, "toolResults"), ...(value.toolResult ? [objectIn(value, "toolResult")] : [])]
  if (results.length) return results.map(result => `${textIn(result, "toolName")}: ${partsText(objectsIn(result, "result"))}`).join("; ")
  if (type === "startRun") {
    const said = objectsIn(value, "inputMessages").filter(message => message.type === "userMessage")
    return said.length ? partsText(objectsIn(said[said.length - 1], "contents")) : ""
  }
  const error = objectIn(value, "error")
  return textIn(value, "text") || textIn(value, "reason") || [textIn(error, "name"), textIn(error, "message")].filter(Boolean).join(": ")
}

function Events({ run, type }: { run: Run; type: string }): JSX.Element {
  const [most, setMost] = useState(EVENTS)
  const types = [...new Set(run.items.map(item => item.type))].sort()
  const items = type ? run.items.filter(item => item.type === type) : run.items
  return (
    <>
      <form class="filters" onSubmit={event => event.preventDefault()}>
        <label><span class="hidden">Type</span>
          <select value={type} onChange={event => change({ type: event.currentTarget.value || null })}>
            <option value="">all types</option>
            {types.map(name => <option key={name} value={name}>{line(name, 60)}</option>)}
          </select>
        </label>
        <span class="dim">{count(items.length)} lines; the deltas of a stream are one</span>
      </form>
      <ol class="events">
        {items.slice(0, most).map(item => <EventLine key={item.position} item={item} />)}
      </ol>
      {items.length > most && <button type="button" class="button wide" onClick={() => setMost(most + EVENTS * 2)}>Show more of {count(items.length)}</button>}
    </>
  )
}

function EventLine({ item }: { item: Item }): JSX.Element {
  const [open, setOpen] = useState(false)
  const words = wordsOf(item)
  const kind = item.type.startsWith("stopRunBy") || item.type === "retry" ? "bad" : item.deltas ? "dim" : ""
  return (
    <li>
      <div class="event">
        <Link to={path(["records", String(item.position)])} class="code" title="Open this record">#{item.position}</Link>
        <span class="dim code">{clock(item.at)}</span>
        <span class="num dim" title="Step">{count(item.step)}</span>
        <b class={kind}>{line(item.type, 60)}</b>
        {item.deltas
          ? <button type="button" class="plain clip grow" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "▾" : "▸"} {words}</button>
          : <span class="grow clip">{line(words, 240)}</span>}
      </div>
      {open && item.deltas && <Deltas item={item} />}
    </li>
  )
}

function Deltas({ item }: { item: Item }): JSX.Element {
  const [each, setEach] = useState(false)
  const deltas = item.deltas ?? []
  return (
    <div class="deltas">
      <button type="button" class="plain" aria-pressed={each} onClick={() => setEach(!each)}>{each ? "as text" : "one by one"}</button>
      {each
        ? <ol>{deltas.slice(0, 2000).map(delta => <li key={delta.position}><Link to={path(["records", String(delta.position)])} class="code">#{delta.position}</Link> <span class="dim code">+{span(delta.at - item.at)}</span> <span class="pre">{line(delta.text, 400)}</span></li>)}</ol>
        : <Text text={joined(item)} folded={4000} />}
    </div>
  )
}

// --- conversation ------------------------------------------------------------------------------------

const SPEAKERS = table<string>({
  instructionMessage: "instruction", userMessage: "user", expertMessage: "expert", toolMessage: "tool",
})

function Conversation({ run, step }: { run: Run; step: number | null }): JSX.Element {
  // A file has the messages of checkpoints only.
  const seen = exported ? [] : [...run.steps.values()].filter(one => one.generationPosition !== null).sort((a, b) => a.number - b.number)
  const last = run.checkpoints[run.checkpoints.length - 1]
  const chosen = step === null ? undefined : seen.find(one => one.number === step)
  const position = chosen?.generationPosition ?? last?.position ?? seen[seen.length - 1]?.generationPosition ?? null
  const [messages, setMessages] = useState<Value[] | null>(null)
  const [trouble, setTrouble] = useState("")
  useEffect(() => {
    if (position === null) return
    const ending = new AbortController()
    setMessages(null)
    recordAt(position, ending.signal).then(record => {
      setMessages(objectsIn(record.value, "messages"))
      setTrouble(exported && !("messages" in record.value) ? "This checkpoint is too large: the file leaves out its messages." : "")
    }, (error: unknown) => {
      if (!ending.signal.aborted) setTrouble(error instanceof Error ? error.message : String(error))
    })
    return () => ending.abort()
  }, [position])
  return (
    <>
      <form class="filters" onSubmit={event => event.preventDefault()}>
        <label><span class="hidden">As seen at</span>
          <select value={chosen ? String(chosen.number) : ""} onChange={event => change({ step: event.currentTarget.value || null })}>
            <option value="">at the end (last checkpoint)</option>
            {seen.map(one => <option key={one.number} value={String(one.number)}>as the model saw it at step {one.number}</option>)}
          </select>
        </label>
        {messages && <span class="dim">{count(messages.length)} messages</span>}
      </form>
      <Trouble text={trouble} />
      {!messages && !trouble && <Empty>{position === null ? "No message is stored yet." : "Loading…"}</Empty>}
      {messages && <Messages messages={messages} />}
    </>
  )
}

export function Messages({ messages }: { messages: Value[] }): JSX.Element {
  const [most, setMost] = useState(100)
  return (
    <>
      {messages.slice(0, most).map((message, index) => <Message key={index} message={message} />)}
      {messages.length > most && <button type="button" class="button wide" onClick={() => setMost(most + 200)}>Show more of {count(messages.length)}</button>}
    </>
  )
}

export function Message({ message, sign }: { message: Value; sign?: "+" | "−" }): JSX.Element {
  const type = textIn(message, "type")
  const speaker = SPEAKERS[type] ?? (type || "message")
  const contents = message.contents
  return (
    <article class={`message ${SPEAKERS[type] ?? ""} ${sign === "+" ? "plus" : sign ? "minus" : ""}`}>
      <h3>{sign && <span class="sign">{sign}</span>}{line(speaker, 40)}</h3>
      <div>
        {typeof contents === "string" && <Text text={contents} folded={1500} />}
        {objectsIn(message, "contents").map((part, index) => <Part key={index} part={part} />)}
      </div>
    </article>
  )
}

function Part({ part }: { part: Value }): JSX.Element {
  switch (part.type) {
    case "textPart":
      return <Text text={textIn(part, "text")} folded={1500} />
    case "thinkingPart":
      return <div class="reasoning"><h4>reasoning</h4><Text text={textIn(part, "thinking")} folded={600} /></div>
    case "toolCallPart":
      return <div><h4>calls <Name text={textIn(part, "toolName")} code /></h4><Arguments value={part.args} /></div>
    case "toolResultPart":
      return <div><h4>result of <Name text={textIn(part, "toolName")} code /></h4><Text text={partsText(objectsIn(part, "contents"))} mono folded={1000} /></div>
    default:
      return <Tree value={part} name={textIn(part, "type") || "part"} open={1} />
  }
}
