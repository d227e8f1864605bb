// What began in a period, newest first: read page by page, up to a bound.

import { useEffect, useState } from "preact/hooks"
import { api, json, type Page } from "./data"

/** Periods to choose: name, words, milliseconds, and the width of a column of a plot. */
export const PERIODS: [string, string, number, number][] = [
  ["1d", "last day", 86_400_000, 3_600_000], ["7d", "last 7 days", 7 * 86_400_000, 6 * 3_600_000],
  ["30d", "last 30 days", 30 * 86_400_000, 86_400_000], ["all", "all", 0, 0],
]

export type Counted<T> = {
  items: T[]
  /** Whether these are all of the period; else the newest. */
  complete: boolean
  /** Whether nothing more is read. */
  ready: boolean
  trouble: string
}

const NOTHING = { items: [], complete: false, ready: false, trouble: "" }

/** The items of a listing of the gateway, up to `most`; it grows page by page. `name` is none: nothing is read. */
export function useListing<T>(name: string | null, period: string, size: number, most: number, query: { [name: string]: string } = {}): Counted<T> {
  const key = JSON.stringify([name, period, query])
  const [read, set] = useState<Counted<T> & { key: string }>({ ...NOTHING, key })
  useEffect(() => {
    const ending = new AbortController()
    const load = async (of: string): Promise<void> => {
      const age = PERIODS.find(([one]) => one === period)?.[2]
      const since = age ? Date.now() - age : null
      let items: T[] = []
      let after: string | null = null
      do {
        const page: Page<T> = await json(api([of], { ...query, limit: size, after, since }), ending.signal)
        items = items.concat(page.items)
        after = page.next
        set({ items, complete: after === null, ready: after === null || items.length >= most, trouble: "", key })
      } while (after !== null && items.length < most)
    }
    if (name === null) return undefined
    load(name).catch((error: unknown) => {
      if (!ending.signal.aborted) set(now => ({ ...now, key, trouble: error instanceof Error ? error.message : String(error) }))
    })
    return () => ending.abort()
  }, [key])
  return read.key === key ? read : NOTHING
}
