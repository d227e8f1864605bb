// All events of a run, one in a line; the deltas of a stream are folded into one.

import type { JSX } from "preact"
import { useState } from "preact/hooks"
import { path } from "./data"
import { bytes, clock, count, line, span } from "./format"
import { Link, Text } from "./parts"
import { change } from "./router"
import { joined, type Item, type Run } from "./shapes"
import { objectIn, objectsIn, partsText, textIn } from "./values"

const EVENTS = 300

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

export function Events({ run, type }: { run: Run; type: string }): JSX.Element {
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
