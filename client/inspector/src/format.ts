// Times, durations, sizes and numbers as people read them; texts of others made safe to look at.

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const dayAndTime = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
})
const timeOnly = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
})
const plain = new Intl.NumberFormat("en-US")
const MOST_MS = 8.64e15

function isTime(ms: unknown): ms is number {
  return typeof ms === "number" && Math.abs(ms) <= MOST_MS
}

/** Day and time in local time; nothing for what is no time. */
export function when(ms: unknown): string {
  return isTime(ms) ? dayAndTime.format(ms) : ""
}

/** Time of day with milliseconds. */
export function clock(ms: unknown): string {
  return isTime(ms) ? timeOnly.format(ms) : ""
}

/** In UTC with milliseconds, for titles. */
export function exactly(ms: unknown): string {
  return isTime(ms) ? new Date(ms).toISOString() : ""
}

/** A duration: 12 ms, 0.42 s, 12.3 s, 3 min 05 s, 2 h 07 min. */
export function span(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms) || ms < 0) return ""
  if (ms < 100) return `${Math.round(ms)} ms`
  if (ms < 10 * SECOND) return `${(ms / SECOND).toFixed(ms < SECOND ? 2 : 1)} s`
  if (ms < MINUTE) return `${Math.round(ms / SECOND)} s`
  const units: [number, string, number, string][] = [
    [DAY, "d", HOUR, "h"], [HOUR, "h", MINUTE, "min"], [MINUTE, "min", SECOND, "s"],
  ]
  for (const [size, unit, smaller, smallerUnit] of units) {
    if (ms >= size) {
      return `${Math.floor(ms / size)} ${unit} ${String(Math.floor((ms % size) / smaller)).padStart(2, "0")} ${smallerUnit}`
    }
  }
  return ""
}

/** How long ago: now, 12 s ago, 3 min ago. */
export function ago(ms: unknown, now: number): string {
  if (!isTime(ms)) return ""
  const past = now - ms
  if (past < 5 * SECOND && past > -MINUTE) return "now"
  if (past < 0) return when(ms)
  if (past < MINUTE) return `${Math.round(past / SECOND)} s ago`
  if (past < HOUR) return `${Math.round(past / MINUTE)} min ago`
  if (past < DAY) return `${Math.round(past / HOUR)} h ago`
  return past < 30 * DAY ? `${Math.round(past / DAY)} d ago` : when(ms)
}

/** A number with its thousands apart; what is none as it is. */
export function count(value: unknown): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return value === undefined || value === null ? "" : visible(String(value))
  return plain.format(value)
}

/** A number in at most five characters: 950, 12.3k, 4.5M. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return ""
  const size = Math.abs(value)
  if (size < 1000) return String(Math.round(value))
  if (size < 1e6) return `${(value / 1e3).toFixed(size < 1e5 ? 1 : 0)}k`
  return size < 1e9 ? `${(value / 1e6).toFixed(1)}M` : `${(value / 1e9).toFixed(1)}G`
}

/** A number of bytes: 12 B, 3.9 KB, 1.2 MB. */
export function bytes(value: number): string {
  if (value < 1000) return `${value} B`
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e5 ? 1 : 0)} KB`
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(1)} GB`
}

/** Bytes of a text in UTF-8. */
export function byteLength(text: string): number {
  let size = text.length
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code >= 0x80) size += code >= 0x800 && (code < 0xd800 || code > 0xdfff) ? 2 : 1
  }
  return size
}

// Control characters but tab and line feed, marks that turn the direction of text, invisible ones, and
// lone surrogates: each is shown by its number, so that nothing looks like what it is not.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g

/** A text in which each character is seen. */
export function visible(text: string): string {
  return text.replace(HIDDEN, found => {
    const code = found.charCodeAt(0)
    if (code < 0x20) return String.fromCharCode(0x2400 + code)
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`
  })
}

/** The same in one line, of at most `most` characters. */
export function line(text: string, most = 200): string {
  const head = text.slice(0, most * 2).replace(/\s+/g, " ").trim()
  const cut = head.length > most || text.length > most * 2
  return visible(cut ? `${head.slice(0, most)}…` : head)
}
