// One side of a conversation with the daemon, without sockets and clocks: what to send, what an answer means.
//
// A driver with a socket does this, over and over:
//
//     while ((frame = protocol.nextFrame(now)) !== undefined && <the socket took it>) protocol.sent(now)
//     for (frame of <what arrived>) protocol.receive(frame, now)
//     if (protocol.silent(now)) { <close the socket, connect a new one>; protocol.disconnected() }
//     <wait until something arrives, the socket takes frames again, or protocol.due()>

import { Backlog } from "./backlog.js"
import { Batch } from "./batch.js"
import * as frames from "./frames.js"
import { Read } from "./reads.js"
import { StoreQueue } from "./stores.js"

/** The session's stores, the reads under way, and the `hello` that opens each connection. */
export class ClientProtocol {
  readonly limits = new frames.Limits()
  readonly stores: StoreQueue
  readonly backlog: Backlog
  readonly reads = new Set<Read>()
  readonly #session: string
  #nextId = 1
  #hello: Read
  #offered: Read | Batch | undefined

  constructor(session: string) {
    this.#session = session
    this.stores = new StoreQueue(session, this.limits)
    this.backlog = new Backlog(this.stores, this.limits)
    this.#hello = this.#newHello()
  }

  #newHello(): Read {
    return new Read("hello", "", Infinity, { session: this.#session })
  }

  /** Whether nothing is unanswered and nobody waits. */
  get idle(): boolean {
    return this.stores.empty && this.backlog.empty && this.reads.size === 0
  }

  /** Whether the frame offered last opens the connection. */
  get offersHello(): boolean {
    return this.#offered === this.#hello
  }

  /** Returns the frame to hand to the socket now; `sent` says that the socket took it. */
  nextFrame(now: number): Buffer | undefined {
    for (const read of [this.#hello, ...this.reads]) {
      if (!read.done && read.ready(now)) {
        this.#offered = read
        return read.frame(this.#nextId, now)
      }
    }
    this.backlog.move()
    const batch = this.stores.nextBatch(now)
    this.#offered = batch
    return batch && this.stores.frame(batch, this.#nextId)
  }

  /** Notes that the socket took the frame that `nextFrame` returned last. */
  sent(now: number): void {
    const id = this.#nextId++
    if (this.#offered instanceof Batch) this.stores.sent(this.#offered, id, now)
    else this.#offered?.sent(id, now)
  }

  /**
   * Takes a frame that arrived. Answers to what nobody waits for any more are ignored.
   *
   * Throws ProtocolError if it is no answer as wire.md has it.
   */
  receive(frame: Buffer, now: number): void {
    const answer = frames.parseAnswer(frame)
    if (this.stores.answered(answer, now)) return
    const { valueBytes } = this.limits
    for (const read of this.reads) if (read.answered(answer, now, valueBytes)) return
    if (this.#hello.answered(answer, now, valueBytes) && this.#hello.done) {
      if (this.#hello.failure !== undefined) throw this.#hello.failure
      if (this.#hello.error === undefined) this.limits.learn(this.#hello.body)
      this.limits.known = true // a daemon that refuses it gets the usual limits
    }
  }

  /** Whether an answer is due to come. */
  get waiting(): boolean {
    return this.stores.underWay.size > 0 || !this.#hello.done || [...this.reads].some((read) => !read.done)
  }

  /** Returns when the oldest store will have waited for so long with no store answered since. */
  givesUpAt(timeoutMs: number): number {
    const oldestAt = Math.min(this.stores.oldestAt, this.backlog.oldestAt)
    return Math.max(oldestAt, this.stores.progressAt) + timeoutMs
  }

  /** Gives up the stores that were called for up to a time; see `StoreQueue.abandon`. */
  abandon(through: number): Batch[] {
    return [...this.stores.abandon(through), ...this.backlog.abandon(through)]
  }

  /** A new connection: everything without an answer is sent again, after a `hello`. */
  disconnected(): void {
    this.#hello = this.#newHello()
    this.#offered = undefined
    this.stores.disconnected()
    for (const read of this.reads) read.disconnected()
  }

  /** Returns when the driver must call again although nothing arrives. */
  due(): number {
    let due = Math.min(this.stores.due(), this.#hello.due())
    for (const read of this.reads) due = Math.min(due, read.due())
    return due
  }

  /** Whether an answer is overdue, so that a new connection is needed. */
  silent(now: number): boolean {
    let overdue = this.stores.silent(now)
    for (const read of [this.#hello, ...this.reads]) overdue = read.silent(now) || overdue
    return overdue
  }
}
