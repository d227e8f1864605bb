// JSON as a tree. What is inside is made only when it is opened, so depth and size don't matter.

import type { JSX } from "preact"
import { useState } from "preact/hooks"
import { bytes, byteLength, count, line } from "./format"
import { Text } from "./parts"

const ITEMS = 200
const OPEN_TEXT = 300

export function Tree({ value, name, open }: { value: unknown; name: string; open: number }): JSX.Element {
  return <div class="tree" role="tree" aria-label={line(name, 60)}><Node name={null} value={value} open={open} /></div>
}

function Node({ name, value, open }: { name: string | null; value: unknown; open: number }): JSX.Element {
  const [isOpen, setOpen] = useState(open > 0)
  const [most, setMost] = useState(ITEMS)
  const label = name === null ? null : <span class="key">{line(name, 200)}</span>
  if (typeof value === "object" && value !== null) {
    const isList = Array.isArray(value)
    const entries: [string, unknown][] = isOpen
      ? isList ? value.slice(0, most).map((item, index) => [String(index), item]) : Object.entries(value).slice(0, most)
      : []
    const size = isList ? value.length : Object.keys(value).length
    return (
      <div class="node" role="treeitem" aria-expanded={isOpen}>
        <button type="button" class="plain" onClick={() => setOpen(!isOpen)}>
          <i aria-hidden="true">{size === 0 ? "" : isOpen ? "▾" : "▸"}</i>{label}
          <span class="dim">{isList ? `[${count(size)}]` : `{${count(size)}}`}{!isOpen && !isList && size > 0 ? ` ${line(Object.keys(value).slice(0, 6).join(", "), 80)}` : ""}</span>
        </button>
        {isOpen && (
          <div class="inner" role="group">
            {entries.map(([key, item]) => <Node key={key} name={key} value={item} open={open - 1} />)}
            {size > most && <button type="button" class="plain more" onClick={() => setMost(most + ITEMS)}>… {count(size - most)} more</button>}
          </div>
        )}
      </div>
    )
  }
  if (typeof value === "string") {
    return (
      <div class="leaf" role="treeitem">{label}
        {value.length > OPEN_TEXT || value.includes("\n")
          ? <><span class="dim">{bytes(byteLength(value.slice(0, 20_000_000)))}</span><Text text={value} folded={OPEN_TEXT} className="string" /></>
          : <Text text={value} className="string short" />}
      </div>
    )
  }
  return <div class="leaf" role="treeitem">{label}<span class={value === null ? "null" : typeof value}>{String(value)}</span></div>
}
