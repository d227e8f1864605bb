// The conversation of a run as the model saw it, and the messages of any record.

import type { JSX } from "preact"
import { useEffect, useState } from "preact/hooks"
import { exported, recordAt } from "./data"
import { count, line } from "./format"
import { Arguments, Empty, Name, Text, Trouble } from "./parts"
import { change } from "./router"
import type { Run } from "./shapes"
import { Tree } from "./tree"
import { objectsIn, partsText, table, textIn, type Value } from "./values"

const SPEAKERS = table<string>({
  instructionMessage: "instruction", userMessage: "user", expertMessage: "expert", toolMessage: "tool",
})

export function Conversation({ run, step }: { run: Run; step: number | null }): JSX.Element {
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
