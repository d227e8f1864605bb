// The stores of one session that have no final answer yet: numbers, batches, window, and what is sent again.
// No sockets and no clocks: the time comes in as `now`, in milliseconds of a steady clock.

import { Batch, type Outcome, type Store } from "./batch.js"
import { AllOrNone, type Condition } from "./conditions.js"
import { ProtocolError, type WireError } from "./errors.js"
import * as frames from "./frames.js"
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, PATIENCE_MAX_MS, PATIENCE_MIN_MS } from "./patience.js"

export const BATCH_ITEMS_MAX = 64
/** Above this a batch is full: larger frames gain nothing and delay the first answer. */
export const BATCH_BYTES_MAX = 262_144
/** A batch takes none that is called for later than so long after its first: batches are given up whole. */
const BATCH_AGE_MAX_MS = 100
const PART_BYTES_MAX = 4_194_304
const PARTS_IN_FLIGHT_MAX = 2

/**
 * The state machine of a session's stores (go-back-N).
 *
 * `#unanswered` holds all batches in order, `#waiting` those that have to be sent (again). Any retryable
 * error, and silence, end with all of them sent again.
 */
export class StoreQueue {
  /** By the ids of requests that have no answer. */
  readonly underWay = new Map<number, Batch>()
  /** When a store was last answered. */
  progressAt = 0
  readonly #session: string
  readonly #limits: frames.Limits
  #unanswered: Batch[] = []
  #waiting: Batch[] = []
  #open: Batch | undefined
  #nextSeq = 1
  #records = 0
  #bytes = 0
  #resendAt: number | undefined
  #backoffMs = BACKOFF_MIN_MS
  #patienceMs = PATIENCE_MIN_MS

  constructor(session: string, limits: frames.Limits) {
    this.#session = session
    this.#limits = limits
  }

  /** Whether all have their outcomes. */
  get empty(): boolean {
    return this.#unanswered.length === 0
  }

  /** When the first store without a final outcome was called for; infinity if there is none. */
  get oldestAt(): number {
    return this.#unanswered[0]?.calledAt ?? Infinity
  }

  /** Whether one more value of `size` bytes stays within the window, or nothing is unanswered at all. */
  hasRoom(size: number): boolean {
    const { windowRecords, windowBytes } = this.#limits
    return this.#records === 0 || (this.#records < windowRecords && this.#bytes + size <= windowBytes)
  }

  /** Appends a store, to the batch that still takes some or to a new one. */
  add(store: Store): void {
    const size = store.body.length
    let batch = this.#open
    if (
      batch === undefined ||
      batch.condition !== store.condition ||
      batch.bytes + size > BATCH_BYTES_MAX ||
      store.calledAt - batch.calledAt > BATCH_AGE_MAX_MS
    ) {
      batch = this.#startBatch(size, store.calledAt, store.condition)
    }
    batch.add(store)
    const numbers = 1 + (store.condition?.extra ?? 0)
    this.#nextSeq += numbers
    this.#records += numbers
    this.#bytes += size
    if (batch.stores.length >= Math.min(BATCH_ITEMS_MAX, this.#limits.batchItems)) this.#open = undefined
  }

  #startBatch(size: number, now: number, condition: Condition | undefined): Batch {
    const batch = new Batch(this.#nextSeq, now, condition)
    this.#unanswered.push(batch)
    this.#waiting.push(batch)
    this.#open = size < BATCH_BYTES_MAX ? batch : undefined
    if (condition instanceof AllOrNone) {
      this.#open = undefined // it has all its values, and can't come in parts
    } else if (size > this.#limits.frameBytes - frames.HEADER_RESERVE_BYTES) {
      batch.parts = Math.ceil(size / this.#partBytes)
    }
    return batch
  }

  get #partBytes(): number {
    return Math.min(PART_BYTES_MAX, this.#limits.frameBytes - frames.HEADER_RESERVE_BYTES)
  }

  /**
   * Takes out what was called for up to the time `through`: its numbers count as settled from now on.
   *
   * To be followed by a new connection: what comes after is sent again there. Where the first batch was
   * last answered with a retryable error, all that are returned have it.
   */
  abandon(through: number): Batch[] {
    let count = 0
    while (this.#unanswered[count] !== undefined && (this.#unanswered[count]?.calledAt ?? 0) <= through) count += 1
    const gone = this.#unanswered.splice(0, count)
    for (const batch of gone) {
      this.#records -= batch.numbers
      this.#bytes -= batch.bytes
      batch.error = gone[0]?.error
    }
    if (this.#open !== undefined && gone.includes(this.#open)) this.#open = undefined
    this.disconnected()
    return gone
  }

  /** Whether there is a batch to be sent that takes no more. */
  get hasFullBatch(): boolean {
    return this.#waiting.length > 0 && this.#waiting[0] !== this.#open
  }

  /** Returns the batch whose frame (or next part) may be sent now. */
  nextBatch(now: number): Batch | undefined {
    if (this.#resendAt !== undefined) {
      if (now < this.#resendAt) return undefined
      this.disconnected()
    }
    const batch = this.#waiting[0]
    if (batch === undefined) return undefined
    if (batch.condition !== undefined) {
      if (!this.#limits.known) return undefined // `hello` tells whether the daemon keeps it
      const problem = batch.condition.problem(batch.bytes, this.#limits)
      if (problem !== undefined) {
        this.#refuse(batch, problem, now)
        return this.nextBatch(now)
      }
    }
    // It gathers more until the answer comes: a frame costs far more than a store in it.
    if (batch === this.#open && this.underWay.size > 0) return undefined
    if (batch.parts > 1 && this.underWay.size >= PARTS_IN_FLIGHT_MAX) return undefined
    return batch
  }

  #refuse(batch: Batch, problem: WireError, now: number): void {
    if (batch === this.#open) this.#open = undefined
    this.#waiting.shift()
    this.#records -= batch.numbers
    this.#bytes -= batch.bytes
    batch.take(batch.stores.map(() => problem))
    if (batch === this.#unanswered[0]) this.#popSettled(now)
  }

  /** Returns the bytes of a batch, or of its next part. */
  frame(batch: Batch, id: number): Buffer {
    const place = { session: this.#session, seq: batch.first, settled: this.#settled }
    const first = batch.stores[0]
    if (first === undefined) throw new Error("a batch is never empty")
    const conditions = batch.condition?.header() ?? ""
    if (batch.parts > 1) {
      return frames.partRequest(first.op, id, place, first.body, batch.nextPart, this.#partBytes, conditions)
    }
    if (batch.stores.length === 1) return frames.storeRequest(first.op, id, place, first.body, conditions)
    const ops = batch.stores.map((store) => store.op)
    return frames.batchRequest(id, place, ops, batch.stores.map((store) => store.body), conditions)
  }

  /** Every number up to this one has its final answer, or was given up. */
  get #settled(): number {
    return (this.#unanswered[0]?.first ?? this.#nextSeq) - 1
  }

  /** Notes that the socket took the frame of a batch, or of its next part. */
  sent(batch: Batch, id: number, now: number): void {
    this.underWay.set(id, batch)
    batch.sentAt = now
    batch.sentEver = true
    batch.error = undefined
    batch.nextPart += 1
    if (batch.nextPart >= batch.parts) this.#waiting.shift()
    if (batch === this.#open) this.#open = undefined
  }

  /** Everything unanswered waits to be sent again. */
  disconnected(): void {
    // Answers to what was sent so far name ids that nobody knows any more: they are ignored.
    this.underWay.clear()
    this.#resendAt = undefined
    this.#waiting = this.#unanswered.filter((batch) => !batch.done)
    for (const batch of this.#waiting) batch.nextPart = 0
  }

  /** Takes an answer; returns whether it was to a store of the current transmission. */
  answered(answer: frames.Answer, now: number): boolean {
    const { header } = answer
    const batch = this.underWay.get(header.id)
    if (batch === undefined) return false
    this.underWay.delete(header.id)
    if (header.ok && header.part !== undefined && batch.parts > 1) {
      batch.sentAt = this.progressAt = now
      return true
    }
    const [records, bytes] = [batch.numbers, batch.bytes]
    const outcomes = outcomesOf(answer, batch.stores.length, records)
    for (const outcome of outcomes) if (typeof outcome === "number") batch.condition?.stored(outcome)
    const error = batch.take(outcomes)
    this.#records -= records - batch.numbers
    this.#bytes -= bytes - batch.bytes
    if (batch.parts > 1) this.#dropParts(batch)
    if (error !== undefined) this.#retry(batch, error, now)
    else if (batch === this.#unanswered[0]) this.#popSettled(now)
    return true
  }

  #retry(batch: Batch, error: WireError, now: number): void {
    batch.error = error
    if (this.#resendAt !== undefined) return // the first one of a transmission; the others follow from it
    this.#resendAt = now + Math.max(this.#backoffMs, error.retryAfterMs ?? 0)
    this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS)
  }

  #popSettled(now: number): void {
    this.progressAt = now
    this.#backoffMs = BACKOFF_MIN_MS
    this.#patienceMs = PATIENCE_MIN_MS
    while (this.#unanswered[0]?.done) this.#unanswered.shift()?.settle()
  }

  /** Leaves off with a value that has its answer: those to its other parts mean nothing. */
  #dropParts(batch: Batch): void {
    if (this.#waiting[0] === batch) this.#waiting.shift()
    for (const [id, other] of this.underWay) if (other === batch) this.underWay.delete(id)
  }

  /** Returns when something has to be done although nothing came in. */
  due(): number {
    if (this.#resendAt !== undefined) return this.#resendAt
    if (this.underWay.size === 0) return Infinity
    return Math.max(this.#unanswered[0]?.sentAt ?? 0, this.progressAt) + this.#patienceMs
  }

  /** Whether an answer is overdue; if so, the next one is waited for twice as long. */
  silent(now: number): boolean {
    if (this.#resendAt !== undefined || now < this.due()) return false
    this.#patienceMs = Math.min(this.#patienceMs * 2, PATIENCE_MAX_MS)
    return true
  }
}

/** Returns the outcome of each of `count` stores; throws ProtocolError if the answer does not fit. */
function outcomesOf({ header, error }: frames.Answer, count: number, numbers: number): Outcome[] {
  if (error !== undefined) return new Array<Outcome>(count).fill(error)
  const { position, results } = header
  if (isPosition(position) && (header.count ?? 1) === numbers) {
    return Array.from({ length: count }, (_, i) => position + i)
  }
  if (!Array.isArray(results) || results.length !== count) {
    throw new ProtocolError(`an answer that does not fit a batch of ${count} stores: ${frames.shortened(header)}`)
  }
  return results.map((result) => {
    if (typeof result === "number" && !isPosition(result)) throw new ProtocolError(`an answer with the position ${result}`)
    return typeof result === "number" ? result : frames.errorOf(result)
  })
}

function isPosition(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}
