// Following the store by position: what to ask next, and what an answer means.

import type { Connection } from "../async/connection.js"
import type { SeenEpochs } from "./epochs.js"
import { ClosedError, InvalidArgument, ProtocolError } from "./errors.js"
import { shortened } from "./frames.js"
import { arrayOf, textOf, valueOf } from "./jsonio.js"
import { checked, type Read } from "./reads.js"
import type { Hello, StoredRecord } from "./shapes.js"

/** So long the daemon is asked to wait. One that was killed is missed a little later than that. */
const WAIT_MAX_MS = 2000

/** What to follow; everything may be left out. */
export interface FollowOptions {
  /** A position; 0, the beginning, by default. */
  after?: number
  /** Only what belongs to this job: itself, its settings, checkpoints and events. */
  jobId?: string
  /** Of this job, only what belongs to this run. */
  runId?: string
  /** End when nothing new has come for so long; 0 ends where the store ends now. */
  idleMs?: number
  /** `(await hello()).store`: the history that `after` belongs to, where it was kept. */
  store?: string
  /** Of the record at `after`, where it was kept; this storage knows those that it has seen. */
  epoch?: string
}

/** The state of a subscription. The first request asks for the name of the history, so that another one is noticed. */
export class Follow {
  readonly #connection: Connection
  readonly #filter: { jobId: string | undefined; runId: string | undefined }
  readonly #idleMs: number
  readonly #waitMaxMs: number
  #after: number
  #store: string | undefined
  #epoch: string | undefined
  readonly #seen: SeenEpochs

  constructor(connection: Connection, options: FollowOptions, timeoutMs: number, seen: SeenEpochs) {
    if (options.runId !== undefined && options.jobId === undefined) {
      throw new InvalidArgument("runId needs jobId beside it")
    }
    this.#idleMs = options.idleMs ?? Infinity
    if (!(this.#idleMs >= 0)) throw new InvalidArgument("idleMs must not be negative")
    this.#connection = connection
    this.#filter = { jobId: options.jobId, runId: options.runId }
    this.#waitMaxMs = Math.min(WAIT_MAX_MS, timeoutMs / 4)
    this.#after = options.after ?? 0
    this.#store = options.store
    this.#seen = seen
    this.#epoch = options.epoch ?? seen.at(this.#after)
  }

  async *records(): AsyncGenerator<StoredRecord, void, undefined> {
    if (this.#store === undefined) {
      const hello = checked(await this.#connection.call("hello", ""))
      this.#store = (valueOf(hello.body) as Partial<Hello> | null)?.store
    }
    let quietSince = this.#connection.now()
    for (;;) {
      const left = quietSince + this.#idleMs - this.#connection.now()
      const waitMs = Math.trunc(Math.max(0, Math.min(this.#waitMaxMs, left)))
      const read = await this.#ask(waitMs)
      if (read === undefined) return
      const records = arrayOf(checked(read).body) as StoredRecord[]
      const next = this.#nextOf(read)
      this.#seen.take(read, this.#after, records)
      this.#after = next
      this.#epoch = read.epoch
      yield* records
      if (records.length > 0) quietSince = this.#connection.now()
      // Only an answer that was not waited for is sure to hold everything that was acknowledged before.
      else if (waitMs === 0 && this.#after >= (read.position ?? 0)) return
    }
  }

  /** Returns where to go on: never before where it stands, or records would come twice. */
  #nextOf({ next }: Read): number {
    if (Number.isSafeInteger(next) && (next as number) >= this.#after) return next as number
    throw new ProtocolError(`an answer to readAll that goes on at ${shortened(next)} after ${this.#after}`)
  }

  /** Returns the next answer, or nothing where the storage was closed. */
  async #ask(waitMs: number): Promise<Read | undefined> {
    const args = { after: this.#after, waitMs, store: this.#store, epoch: this.#epoch, ...this.#filter }
    try {
      return await this.#connection.call("readAll", textOf(args), waitMs)
    } catch (error) {
      if (error instanceof ClosedError) return undefined
      throw error
    }
  }
}
