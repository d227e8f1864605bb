// Which epoch a storage saw each position in, so that a base that was put back from a copy is noticed.

import { ProtocolError } from "./errors.js"
import type { Read } from "./reads.js"
import type { StoredRecord } from "./shapes.js"

const EPOCHS_MAX = 1024

/** Positions from the first to the last, and their epoch where it is known. */
interface Span {
  first: number
  last: number
  epoch: string | undefined
}

/** Returns the epochs of the records after `after`, from an answer of `readAll`. */
function spansOf(read: Read, after: number): Span[] {
  const last = read.next as number
  if (!(last > after)) return []
  if (read.epochs === undefined) return [{ first: after + 1, last, epoch: read.epoch }]
  if (!Array.isArray(read.epochs) || !read.epochs.every(isStart)) {
    throw new ProtocolError("an answer has epochs in an unknown form")
  }
  const starts = read.epochs as [number, string | null][]
  return starts.map(([first, epoch], i) => {
    const next = starts[i + 1]
    return { first, last: next === undefined ? last : next[0] - 1, epoch: epoch ?? undefined }
  })
}

function isStart(item: unknown): boolean {
  if (!Array.isArray(item) || item.length !== 2) return false
  const [first, epoch] = item as unknown[]
  return Number.isSafeInteger(first) && (epoch === null || typeof epoch === "string")
}

/** The epochs that a storage saw: for each, from which position to which. */
export class SeenEpochs {
  readonly #spans = new Map<string, { first: number; last: number }>()

  /** Returns the epoch of a position, where it was seen. */
  at(position: number): string | undefined {
    for (const [epoch, { first, last }] of this.#spans) if (first <= position && position <= last) return epoch
    return undefined
  }

  /** Gives each record its epoch, and remembers the epochs in an answer to `readAll` after `after`. */
  take(read: Read, after: number, records: StoredRecord[]): void {
    const spans = spansOf(read, after)
    for (const { first, last, epoch } of spans) if (epoch !== undefined) this.#note(first, last, epoch)
    let i = 0
    for (const record of records) {
      while (i < spans.length && record.position > spans[i]!.last) i += 1
      const epoch = spans[i]?.epoch
      if (epoch !== undefined) record.epoch = epoch
    }
  }

  #note(first: number, last: number, epoch: string): void {
    const before = this.#spans.get(epoch)
    if (before !== undefined && before.first <= first && last <= before.last) return
    for (const [other, span] of this.#spans) {
      if (other === epoch || span.last < first || span.first > last) continue
      // The histories part there: what the other one had after that is of no use.
      if (span.first < first) this.#spans.set(other, { first: span.first, last: first - 1 })
      else this.#spans.delete(other)
    }
    this.#spans.delete(epoch)
    this.#spans.set(epoch, {
      first: Math.min(first, before?.first ?? first),
      last: Math.max(last, before?.last ?? last),
    })
    for (const [oldest] of this.#spans) {
      if (this.#spans.size <= EPOCHS_MAX) break
      this.#spans.delete(oldest)
    }
  }
}
