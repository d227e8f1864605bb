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
import { EndpointError, refused, type StorageError } from "./errors.js"
import * as frames from "./frames.js"
import type { SharedHistory } from "./history.js"
import { Read, STATES } from "./reads.js"
import { StoreQueue } from "./stores.js"

/** The session's stores, the reads under way, and the `hello` that opens each connection. */
export class ClientProtocol {
  readonly limits = new frames.Limits()
  readonly stores: StoreQueue
  readonly backlog: Backlog
  readonly reads = new Set<Read>()
  /** Why the daemon of this connection must not be used: close it then, and connect to another. */
  problem: StorageError | undefined
  readonly #session: string
  readonly #history: SharedHistory
  #nextId = 1
  #hello: Read
  #offered: Read | Batch | undefined
  /** When a read was answered last. */
  #readAt = 0

  /** Where there are several daemons, nothing is sent to one before its `hello` tells that it may be. */
  constructor(session: string, history: SharedHistory) {
    this.#session = session
    this.#history = history
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
    const { several } = this.#history
    if (several) for (const read of this.reads) read.askedAt = Math.min(read.askedAt, now)
    for (const read of [this.#hello, ...this.reads]) {
      if (several && read !== this.#hello && !this.#mayUse) break
      if (!read.done && read.ready(now)) {
        if (this.limits.replicated && !STATES.has(read.op)) read.atLeast = this.#history.position || undefined
        this.#offered = read
        return read.frame(this.#nextId, now)
      }
    }
    if (several && !this.#mayUse) {
      this.#offered = undefined
      return undefined
    }
    this.backlog.move()
    const batch = this.stores.nextBatch(now)
    this.#offered = batch
    return batch && this.stores.frame(batch, this.#nextId)
  }

  /** Whether the daemon has said what it is, and may be used. */
  get #mayUse(): boolean {
    return this.#hello.done && this.problem === undefined
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
    if (this.stores.answered(answer, now)) return this.#note(answer)
    const { valueBytes } = this.limits
    for (const read of this.reads) {
      if (!read.answered(answer, now, valueBytes)) continue
      if (read.done) this.#readAt = now
      return this.#note(answer)
    }
    if (this.#hello.answered(answer, now, valueBytes) && this.#hello.done) {
      if (this.#hello.failure !== undefined) throw this.#hello.failure
      if (this.#hello.error === undefined) {
        this.limits.learn(this.#hello.body)
        this.problem = this.#history.problem(this.limits)
      } else if (this.#history.several) {
        this.problem = new EndpointError(refused("hello", this.#hello.error).message)
      }
      this.limits.known = true // a daemon that refuses it gets the usual limits
    }
  }

  #note({ header }: frames.Answer): void {
    if (this.limits.replicated) this.#history.note(frames.highestPosition(header))
  }

  /**
   * Since when something waits for an answer that is due; infinity if nothing does. A read that waits for news has
   * time, once the connection is there.
   */
  get waitsSince(): number {
    let since = Math.min(this.stores.oldestAt, this.backlog.oldestAt)
    for (const read of this.reads) {
      if (!read.done && !(read.waitMs > 0 && this.#hello.done)) since = Math.min(since, read.askedAt)
    }
    return since
  }

  /** When a store or a read had its answer last. */
  get answeredAt(): number {
    return Math.max(this.stores.progressAt, this.#readAt)
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
    this.problem = undefined
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
