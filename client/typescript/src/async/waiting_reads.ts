// The reads of a connection until they have their answer: those that are sent, and those that wait for their turn.

import { blamed, type Caller } from "../core/caller.js"
import type { ClientProtocol } from "../core/protocol.js"
import { Read } from "../core/reads.js"

/** More reads wait here for their turn; those that wait for new records don't count. */
const READS_IN_FLIGHT_MAX = 32

interface Waiter {
  resolve: (read: Read) => void
  reject: (error: Error) => void
  caller: Caller | undefined
}

/** Reads, and the promises that wait for them. Times as in `ListeningClock`. */
export class WaitingReads {
  readonly #protocol: ClientProtocol
  readonly #timeoutMs: number
  readonly #waiters = new Map<Read, Waiter>()
  readonly #held = new Set<Read>()
  #answeredAt = -Infinity // when a read that does not wait for new records had its answer last
  #due = Infinity

  constructor(protocol: ClientProtocol, timeoutMs: number) {
    this.#protocol = protocol
    this.#timeoutMs = timeoutMs
  }

  /** Takes a read; one that waits for new records may be sent at once, others have their turn. */
  add(read: Read, waiter: Waiter): void {
    this.#waiters.set(read, waiter)
    this.#due = Math.min(this.#due, read.deadline)
    if (read.waitMs > 0) this.#protocol.reads.add(read)
    else this.#held.add(read)
  }

  /** No read fails before this time. */
  get due(): number {
    return this.#due
  }

  /** Whether one waits for its turn. */
  get held(): boolean {
    return this.#held.size > 0
  }

  /** All of them; one may be ended on the way. */
  all(): Iterable<Read> {
    return this.#waiters.keys()
  }

  /** Begins those whose turn it is, when `finished` stores are finished. */
  start(finished: number): void {
    const { reads } = this.#protocol
    let room = READS_IN_FLIGHT_MAX
    for (const read of reads) if (read.waitMs === 0) room -= 1
    for (const read of this.#held) {
      if (room <= 0) return
      if (read.after > finished) continue
      room -= 1
      read.deadline = this.#heldUntil(read)
      this.#held.delete(read)
      reads.add(read)
    }
  }

  /** Ends those that have their answer. */
  finish(now: number): void {
    for (const read of this.#protocol.reads) {
      if (!read.done) continue
      if (read.waitMs === 0) this.#answeredAt = now
      this.end(read, read.failure)
    }
  }

  /** Returns those whose time is over. */
  overdue(now: number): Read[] {
    if (now < this.#due) return []
    const found: Read[] = []
    this.#due = Infinity
    for (const read of this.#waiters.keys()) {
      const deadline = this.#held.has(read) ? this.#heldUntil(read) : read.deadline
      if (deadline > now) this.#due = Math.min(this.#due, deadline)
      else found.push(read)
    }
    return found
  }

  /** When a read that is not sent yet fails: its time does not run while others before it are answered. */
  #heldUntil(read: Read): number {
    const progressAt = Math.max(this.#answeredAt, read.after > 0 ? this.#protocol.stores.progressAt : -Infinity)
    return Math.max(read.deadline, progressAt + this.#timeoutMs)
  }

  /** Ends one, with its answer or an error. */
  end(read: Read, error?: Error): void {
    const waiter = this.#waiters.get(read)
    this.#waiters.delete(read)
    this.#protocol.reads.delete(read)
    this.#held.delete(read)
    if (this.#waiters.size === 0) this.#due = Infinity
    if (error === undefined) waiter?.resolve(read)
    else waiter?.reject(blamed(error, waiter.caller))
  }
}
