// Addresses: each screen has one that can be shared.

import { useEffect, useState } from "preact/hooks"
import { exported, path } from "./data"

export type Place = { parts: string[]; query: { [name: string]: string } }

let current: Place = read()
const listeners = new Set<() => void>()

function read(): Place {
  // A file has no server: its addresses stand after the #.
  const [name = "", search = ""] = exported
    ? decodeFile()
    : [location.pathname, location.search.slice(1)]
  const parts = name.split("/").filter(Boolean).map(part => {
    try {
      return decodeURIComponent(part)
    } catch {
      return part
    }
  })
  return { parts, query: Object.fromEntries(new URLSearchParams(search)) }
}

function decodeFile(): [string, string] {
  const [name = "", search = ""] = location.hash.slice(1).split("?")
  return [name || path(["jobs", exported?.job ?? ""]), search]
}

function changed(): void {
  current = read()
  for (const listener of listeners) listener()
}

/** Go to an address of this page; with `replace` it takes the place of the current one. */
export function go(to: string, replace = false): void {
  const address = exported ? `#${to}` : to
  if (replace) history.replaceState(null, "", address)
  else history.pushState(null, "", address)
  changed()
  if (!replace) window.scrollTo(0, 0)
}

/** The same address with some parameters changed; null takes one away. */
export function change(query: { [name: string]: string | null }): void {
  const merged: { [name: string]: string | null } = { ...current.query, ...query }
  go(path(current.parts, merged), true)
}

export const href = (to: string): string => (exported ? `#${to}` : to)

export function usePlace(): Place {
  const [, again] = useState(0)
  useEffect(() => {
    const listener = (): void => again(n => n + 1)
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }, [])
  return current
}

/** Let links of this page lead without a load. */
export function takeLinks(): void {
  addEventListener("popstate", changed)
  document.addEventListener("click", event => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    const link = (event.target as Element | null)?.closest?.("a")
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return
    const to = link.getAttribute("href") ?? ""
    if (to.startsWith("#/")) {
      event.preventDefault()
      go(to.slice(1))
    } else if (to.startsWith("/") && !to.startsWith("/api/")) {
      event.preventDefault()
      go(to)
    }
  })
}
