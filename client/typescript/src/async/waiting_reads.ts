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
  #held: Read[] = []

  constructor(protocol: ClientProtocol, timeoutMs: number) {
    this.#protocol = protocol
    this.#timeoutMs = timeoutMs
  }

  /** Takes a read; one that waits for new records may be sent at once, others have their turn. */
  add(read: Read, waiter: Waiter): void {
    this.#waiters.set(read, waiter)
    if (read.waitMs > 0) this.#protocol.reads.add(read)
    else this.#held.push(read)
  }

  /** Whether one waits for its turn. */
  get held(): boolean {
    return this.#held.length > 0
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
    this.#held = this.#held.filter((read) => {
      if (room <= 0 || read.after > finished) return true
      room -= 1
      read.deadline = Math.max(read.deadline, this.#protocol.stores.progressAt + this.#timeoutMs)
      reads.add(read)
      return false
    })
  }

  /** When a read fails. While it waits for stores, and the daemon takes them, its time does not run. */
  deadlineOf(read: Read, finished: number): number {
    if (read.after <= finished) return read.deadline
    return Math.max(read.deadline, this.#protocol.stores.progressAt + this.#timeoutMs)
  }

  /** Ends one, with its answer or an error. */
  end(read: Read, error?: Error): void {
    const waiter = this.#waiters.get(read)
    this.#waiters.delete(read)
    if (!this.#protocol.reads.delete(read)) this.#held = this.#held.filter((held) => held !== read)
    if (error === undefined) waiter?.resolve(read)
    else waiter?.reject(blamed(error, waiter.caller))
  }
}
