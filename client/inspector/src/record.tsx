// One record by its position: as a tree, and exactly as it was stored. And what changed between checkpoints.

import type { JSX } from "preact"
import { useEffect, useState } from "preact/hooks"
import { api, ApiError, exported, json, path, text, type Record } from "./data"
import { bytes, byteLength, count, exactly, line, span } from "./format"
import { Copy, Empty, Link, Name, Tabs, Text, Trouble, When } from "./parts"
import { go, usePlace } from "./router"
import { Message, Messages } from "./conversation"
import { Tree } from "./tree"
import { numberIn, objectIn, objectsIn, table, textIn, type Value } from "./values"

const OPS = table<string>({
  storeJob: "Job", storeCheckpoint: "Checkpoint", storeEvent: "Event", storeRunSetting: "Run setting",
  deleteJob: "Deletion of a job", deleteRun: "Deletion of a run",
})

type Found = { raw: string; record: Record } | { error: string; missing: boolean } | null

function useRecord(position: number): Found {
  const [found, set] = useState<Found>(null)
  useEffect(() => {
    const ending = new AbortController()
    set(null)
    const inFile = exported?.records.find(record => record.position === position)
    if (inFile) {
      set({ raw: JSON.stringify(inFile), record: inFile })
      return
    }
    text(api(["records", String(position)]), ending.signal).then(
      raw => set({ raw, record: JSON.parse(raw) as Record }),
      (error: unknown) => {
        if (ending.signal.aborted) return
        set({ error: error instanceof Error ? error.message : String(error), missing: error instanceof ApiError && error.code === "NOT_FOUND" })
      })
    return () => ending.abort()
  }, [position])
  return found
}

export function RecordPage({ position }: { position: number }): JSX.Element {
  const { query } = usePlace()
  const found = useRecord(position)
  useEffect(() => {
    const key = (event: KeyboardEvent): void => {
      const inField = /^(INPUT|SELECT|TEXTAREA|BUTTON)$/.test(document.activeElement?.tagName ?? "")
      if (inField || event.ctrlKey || event.metaKey || event.altKey) return
      if (event.key === "ArrowLeft" && position > 1) go(path(["records", String(position - 1)], { view: query.view }))
      if (event.key === "ArrowRight") go(path(["records", String(position + 1)], { view: query.view }))
    }
    addEventListener("keydown", key)
    return () => removeEventListener("keydown", key)
  }, [position, query.view])
  const steps = (
    <span class="buttons">
      <Link class="button" to={path(["records", String(Math.max(1, position - 1))], { view: query.view })} title="The record before (←)">‹ #{position - 1 || 1}</Link>
      <Link class="button" to={path(["records", String(position + 1)], { view: query.view })} title="The next record (→)">#{position + 1} ›</Link>
    </span>
  )
  if (!found || "error" in found) {
    return (
      <main>
        <div class="head"><h1>#{count(position)}</h1><span class="grow" />{steps}</div>
        {!found ? <Empty>Loading…</Empty> : found.missing ? <Empty>Nothing is at this position: it is not stored yet, was lost, or repeats an earlier event.</Empty> : <Trouble text={found.error} />}
      </main>
    )
  }
  const { record, raw } = found
  const { value } = record
  const job = record.op === "storeJob" ? textIn(value, "id") : textIn(value, "jobId")
  const run = textIn(value, "runId")
  const own = numberIn(value, record.op === "storeEvent" ? "timestamp" : "startedAt")
  const messages = objectsIn(value, "messages")
  const view = query.view ?? "tree"
  const to = (name: string): string => path(["records", String(position)], { view: name === "tree" ? null : name })
  return (
    <main>
      <nav class="crumbs" aria-label="You are here">
        {!exported && <><Link to="/">Jobs</Link> / </>}
        <Link to={path(["jobs", job])}><Name text={job} code /></Link>
        {run && <> / <Link to={path(["jobs", job, "runs", run])}><Name text={run} code /></Link></>} / #{position}
      </nav>
      <div class="head">
        <h1>{OPS[record.op] ?? line(record.op, 40)}{record.op === "storeEvent" && <> <Name text={textIn(value, "type")} /></>}</h1>
        <span class="grow" />{steps}
      </div>
      <dl class="figures">
        <div><dt>Position</dt><dd class="code">#{position}</dd></div>
        <div><dt>Stored</dt><dd><When ms={record.time} /></dd></div>
        {own > 0 && <div><dt>Its own time</dt><dd title={exactly(own)}><When ms={own} /></dd></div>}
        {record.op === "storeEvent" && own > 0 && <div><dt>Stored after</dt><dd>{span(record.time - own) || "–"}</dd></div>}
        {"stepNumber" in value && <div><dt>Step</dt><dd>{count(value.stepNumber)}</dd></div>}
        {run && <div><dt>As it was then</dt><dd><Link to={path(["jobs", job], { at: position })}>the job at #{position}</Link></dd></div>}
        <div><dt>Size</dt><dd>{bytes(byteLength(raw))}</dd></div>
      </dl>
      {record.cut && <p class="trouble">Long texts are cut in this file.</p>}
      <Tabs current={view} tabs={[
        { name: "tree", label: "Tree", to: to("tree") },
        ...(messages.length ? [{ name: "messages", label: `Messages ${count(messages.length)}`, to: to("messages") }] : []),
        { name: "raw", label: "As stored", to: to("raw") },
      ]} />
      {view === "tree" && <Tree value={value} name="value" open={2} />}
      {view === "messages" && <Messages messages={messages} />}
      {view === "raw" && (
        <section>
          <p class="dim"><Copy text={raw} label="copy" /> {!exported && <a href={api(["records", String(position)])} download={`record-${position}.json`}>download</a>}</p>
          <Text key={position} text={raw} mono folded={20_000} className="raw" />
        </section>
      )}
    </main>
  )
}

// --- the difference of two checkpoints ---------------------------------------------------------------

type Change = { from: unknown; to: unknown }
type Difference = {
  from: { job: string; checkpoint: string }
  to: { job: string; checkpoint: string }
  fields: { [name: string]: Change }
  usage: { [name: string]: Change }
  messages: {
    from: number; to: number; unchanged: number; moved: boolean
    added: Value[]; removed: Value[]; changed: { from: Value; to: Value }[]
  }
}

function shown(value: unknown): string {
  return typeof value === "string" ? value : value === null || value === undefined ? "" : JSON.stringify(value)
}

export function DiffPage({ id }: { id: string }): JSX.Element {
  const { query } = usePlace()
  const [found, set] = useState<Difference | null>(null)
  const [trouble, setTrouble] = useState("")
  const [ids, setIds] = useState<{ id: string; label: string }[]>([])
  useEffect(() => {
    const ending = new AbortController()
    json<{ items: Value[] }>(api(["jobs", id, "checkpoints"], { limit: 1000, asOf: query.at }), ending.signal).then(page => setIds(page.items.map(one => ({
      id: textIn(one, "id"),
      label: `step ${numberIn(one, "stepNumber")}, ${textIn(objectIn(one, "expert"), "key")}: ${textIn(one, "status")}`,
    }))), () => setIds([]))
    return () => ending.abort()
  }, [id, query.at])
  useEffect(() => {
    if (!query.from || !query.to) return
    const ending = new AbortController()
    json<Difference>(api(["jobs", id, "diff"], { from: query.from, to: query.to, asOf: query.at }), ending.signal).then(
      difference => {
        set(difference)
        setTrouble("")
      },
      (error: unknown) => {
        if (!ending.signal.aborted) setTrouble(error instanceof Error ? error.message : String(error))
      })
    return () => ending.abort()
  }, [id, query.from, query.to, query.at])
  const choose = (name: "from" | "to") => (event: { currentTarget: HTMLSelectElement }): void => {
    go(path(["jobs", id, "diff"], { ...query, [name]: event.currentTarget.value }), true)
  }
  const messages = found?.messages
  return (
    <main>
      <nav class="crumbs" aria-label="You are here"><Link to="/">Jobs</Link> / <Link to={path(["jobs", id], { at: query.at })}><Name text={id} code /></Link> / difference</nav>
      <div class="head"><h1>What changed</h1></div>
      <form class="filters" onSubmit={event => event.preventDefault()}>
        {(["from", "to"] as const).map(name => (
          <label key={name} class="grow"><span>{name === "from" ? "From" : "To"}</span>
            <select value={query[name] ?? ""} onChange={choose(name)}>
              {!query[name] && <option value="">choose a checkpoint</option>}
              {ids.map(one => <option key={one.id} value={one.id}>{line(one.label, 90)}</option>)}
            </select>
          </label>
        ))}
      </form>
      <Trouble text={trouble} />
      {found && messages && (
        <>
          <div class="scroll">
            <table class="changes">
              <thead><tr><th>Field</th><th>From</th><th>To</th><th class="num">Grown by</th></tr></thead>
              <tbody>
                {Object.entries(found.fields).map(([name, change]) => (
                  <tr key={name}><td><Name text={name} code /></td><td class="minus"><Text text={shown(change.from)} folded={300} /></td><td class="plus"><Text text={shown(change.to)} folded={300} /></td><td /></tr>
                ))}
                {Object.entries(found.usage).map(([name, change]) => (
                  <tr key={name}><td><Name text={name} code /></td><td class="num">{count(change.from)}</td><td class="num">{count(change.to)}</td><td class="num">{count(Number(change.to) - Number(change.from))}</td></tr>
                ))}
              </tbody>
            </table>
          </div>
          <h2>Messages</h2>
          <p class="dim">
            {count(messages.from)} → {count(messages.to)}: {[
              [messages.added.length, "added"], [messages.changed.length, "changed"], [messages.removed.length, "removed"], [messages.unchanged, "the same"],
            ].filter(([number]) => number).map(([number, word]) => `${count(number)} ${word}`).join(", ") || "none"}{messages.moved ? ", in another order" : ""}
          </p>
          {messages.removed.map((message, index) => <Message key={`-${index}`} message={message} sign="−" />)}
          {messages.changed.map((change, index) => <div key={`~${index}`} class="pair"><Message message={change.from} sign="−" /><Message message={change.to} sign="+" /></div>)}
          {messages.added.map((message, index) => <Message key={`+${index}`} message={message} sign="+" />)}
        </>
      )}
    </main>
  )
}
