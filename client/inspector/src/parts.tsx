// Small pieces that several screens use.

import type { ComponentChildren, JSX } from "preact"
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { ago, bytes, byteLength, exactly, line, visible, when } from "./format"
import { href } from "./router"
import { KINDS, type Kind } from "./shapes"
import { table } from "./values"

/** Status as a word with a colour and a sign: never by colour alone. */
export type Mood = "good" | "run" | "warn" | "bad" | "idle"

const STALLED_AFTER_MS = 60_000

const MOODS = table<[Mood, string]>({
  completed: ["good", "completed"],
  running: ["run", "running"],
  proceeding: ["run", "running"],
  init: ["run", "starting"],
  stoppedByError: ["bad", "error"],
  stoppedByMaxSteps: ["warn", "max steps"],
  stoppedByExceededMaxSteps: ["warn", "max steps"],
  stoppedByInteractiveTool: ["warn", "waits for a person"],
  stoppedByDelegate: ["idle", "delegated"],
})

export function moodOf(status: string | null, lastAt: number | null, now: number): [Mood, string] {
  const known = MOODS[status ?? ""] ?? ["idle", status ? line(status, 40) : "unknown"]
  const [mood, word] = known as [Mood, string]
  const goesOn = mood === "run" || !status
  if (goesOn && lastAt !== null) {
    return now - lastAt > STALLED_AFTER_MS ? ["warn", "stalled"] : ["run", "running"]
  }
  return [mood, word]
}

const SIGNS: { [mood in Mood]: string } = { good: "✓", run: "▶", warn: "!", bad: "✕", idle: "·" }

export function Status({ status, lastAt, now }: { status: string | null; lastAt: number | null; now: number }): JSX.Element {
  const [mood, word] = moodOf(status, lastAt, now)
  return <span class={`status ${mood}`}><i aria-hidden="true">{SIGNS[mood]}</i>{word}</span>
}

/** The sign and name of a kind of problem. */
export function KindMark({ kind }: { kind: Kind }): JSX.Element {
  const [word, mood] = KINDS[kind]
  return <span class={`status ${mood}`}><i aria-hidden="true">{SIGNS[mood]}</i>{word}</span>
}

/** The time, again each second. */
export function useNow(every = 1000): number {
  const [now, set] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), every)
    return () => clearInterval(timer)
  }, [every])
  return now
}

export function Ago({ ms, now }: { ms: number | null; now: number }): JSX.Element {
  return <time title={exactly(ms)}>{ago(ms, now)}</time>
}

export function When({ ms }: { ms: number | null }): JSX.Element {
  return <time title={exactly(ms)}>{when(ms)}</time>
}

export function Link({ to, children, ...rest }: { to: string; children: ComponentChildren; class?: string; title?: string; "aria-current"?: "page" | undefined }): JSX.Element {
  return <a href={href(to)} {...rest}>{children}</a>
}

/** An id or a name: isolated from the direction of the text around it. */
export function Name({ text, code = false }: { text: string; code?: boolean }): JSX.Element {
  const shown = visible(text)
  return <bdi class={code ? "code" : undefined} title={shown.length > 24 ? shown : undefined}>{shown}</bdi>
}

const FOLDED = 1200
const MORE = 100_000

/** A text of others, of any length: its beginning, and more of it when asked. */
export function Text({ text, mono = false, folded = FOLDED, className = "" }: { text: string; mono?: boolean; folded?: number; className?: string }): JSX.Element {
  const [most, set] = useState(folded)
  const shown = text.length > most ? text.slice(0, most) : text
  return (
    <div class={`text ${mono ? "mono" : ""} ${className}`} dir="auto">
      {visible(shown)}
      {text.length > most && (
        <button type="button" class="more" onClick={() => set(most + MORE)}>
          … show more ({bytes(byteLength(text.slice(most, most + 10_000_000)))} left)
        </button>
      )}
    </div>
  )
}

export function Empty({ children }: { children: ComponentChildren }): JSX.Element {
  return <p class="empty">{children}</p>
}

export function Trouble({ text }: { text: string }): JSX.Element | null {
  return text ? <p class="trouble" role="alert">{visible(text)}</p> : null
}

/** Tabs as links. */
export function Tabs({ tabs, current }: { tabs: { name: string; label: ComponentChildren; to: string }[]; current: string }): JSX.Element {
  return (
    <nav class="tabs" aria-label="Views">
      {tabs.map(tab => (
        <Link key={tab.name} to={tab.to} aria-current={tab.name === current ? "page" : undefined}>{tab.label}</Link>
      ))}
    </nav>
  )
}

export function Copy({ text, label }: { text: string; label: string }): JSX.Element {
  const [done, set] = useState(false)
  const copy = (): void => {
    navigator.clipboard?.writeText(text).then(() => {
      set(true)
      setTimeout(() => set(false), 1500)
    }, () => set(false))
  }
  return <button type="button" class="plain" onClick={copy}>{done ? "copied" : label}</button>
}

/** The width of an element, as it is laid out. */
export function useWidth<T extends HTMLElement>(): [{ current: T | null }, number] {
  const element = useRef<T>(null)
  const [width, set] = useState(0)
  useLayoutEffect(() => {
    if (!element.current) return
    set(element.current.clientWidth)
    const observer = new ResizeObserver(() => set(element.current?.clientWidth ?? 0))
    observer.observe(element.current)
    return () => observer.disconnect()
  }, [])
  return [element, width]
}

/** A list of which only the rows in sight are in the document. Rows have one height. */
export function Rows<T>({ items, height, row, keyOf, label, end }: {
  items: readonly T[]
  height: number
  row: (item: T, index: number) => ComponentChildren
  keyOf: (item: T) => string | number
  label: string
  end?: () => void
}): JSX.Element {
  const element = useRef<HTMLDivElement>(null)
  const [[first, last], set] = useState<[number, number]>([0, 40])
  useLayoutEffect(() => {
    let frame = 0
    const look = (): void => {
      frame = 0
      const top = element.current?.getBoundingClientRect().top ?? 0
      const from = Math.max(0, Math.floor(-top / height) - 10)
      const to = Math.ceil((innerHeight - top) / height) + 10
      set(now => (now[0] === from && now[1] === to ? now : [from, to]))
    }
    const soon = (): void => {
      frame ||= requestAnimationFrame(look)
    }
    look()
    addEventListener("scroll", soon, { passive: true })
    addEventListener("resize", soon)
    return () => {
      cancelAnimationFrame(frame)
      removeEventListener("scroll", soon)
      removeEventListener("resize", soon)
    }
  }, [height])
  useEffect(() => {
    if (last >= items.length) end?.()
  }, [last, items.length, end])
  return (
    <div class="rows" ref={element} role="list" aria-label={label} style={{ height: `${items.length * height}px` }}>
      {items.slice(first, last).map((item, index) => (
        <div key={keyOf(item)} class="row" role="listitem" style={{ top: `${(first + index) * height}px`, height: `${height}px` }}>
          {row(item, first + index)}
        </div>
      ))}
    </div>
  )
}

/** The arguments of a tool call. */
export function Arguments({ value }: { value: unknown }): JSX.Element {
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
