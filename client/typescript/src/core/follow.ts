// Following the store by position: what to ask next, and what an answer means.

import type { Connection } from "../async/connection.js"
import type { StoreOp } from "./batch.js"
import type { SeenEpochs } from "./epochs.js"
import { ClosedError, InvalidArgument, ProtocolError } from "./errors.js"
import { shortened } from "./frames.js"
import { arrayOf, textOf, valueOf } from "./jsonio.js"
import { checked, type Read } from "./reads.js"
import type { Hello, StoredRecord } from "./shapes.js"

/** So long the daemon is asked to wait. One that was killed is missed a little later than that. */
const WAIT_MAX_MS = 2000
const FILTERS = "recordFilters"
const CURSORS = "cursors"

/** What to follow; everything may be left out. */
export interface FollowOptions {
  /** A position; 0, the beginning, by default. */
  after?: number
  /** Only what belongs to this job: itself, its settings, checkpoints and events. */
  jobId?: string
  /** Of this job, only what belongs to this run. */
  runId?: string
  /** Of events only those of these types; without `ops` no other records. */
  types?: string[]
  /** Only what these operations stored, as `storeEvent`. */
  ops?: StoreOp[]
  /**
   * Fields left out of each value: a key, or keys with dots between, as `checkpoint.messages`. An older daemon sends
   * them; `hello` names the feature `recordOmit`.
   */
  omit?: string[]
  /**
   * In place of `after`: begin with the last N of these records; 0 with those stored from now on. The daemon
   * looks back over 10,000 records or 8 MiB of its journal at most.
   */
  last?: number
  /**
   * Of a cursor that the daemon keeps: begin where it stands; one that is not there yet begins as `after` or `last`
   * say. Its records come at least once, whatever is killed: see `commit`.
   */
  name?: string
  /**
   * With `name`: set the cursor by itself, at most once in this number of milliseconds, to what the caller is done with. A
   * record counts as done when the next one is asked for.
   */
  commitEveryMs?: number
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
  readonly #filter: Pick<FollowOptions, "jobId" | "runId" | "types" | "ops" | "omit">
  readonly #idleMs: number
  readonly #waitMaxMs: number
  #after: number
  #last: number | undefined
  readonly #name: string | undefined
  /** Where it begins, the daemon has to say. */
  #begins: boolean
  readonly #commitEveryMs: number | undefined
  #setTo = 0
  #setAt = -Infinity
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
    const { jobId, runId, types, ops, omit, last, name, commitEveryMs } = options
    const given = Object.entries({ jobId, runId, types, ops, omit }).filter(([, value]) => value !== undefined)
    this.#filter = Object.fromEntries(given)
    if (commitEveryMs !== undefined && name === undefined) throw new InvalidArgument("commitEveryMs needs name beside it")
    this.#name = name
    this.#begins = name !== undefined || last !== undefined
    this.#commitEveryMs = commitEveryMs
    if (last !== undefined && options.after) throw new InvalidArgument("last stands in the place of after")
    this.#last = last
    this.#waitMaxMs = Math.min(WAIT_MAX_MS, timeoutMs / 4)
    this.#after = options.after ?? 0
    this.#store = options.store
    this.#seen = seen
    this.#epoch = options.epoch ?? seen.at(this.#after)
  }

  async *records(): AsyncGenerator<StoredRecord, void, undefined> {
    const { types, ops } = this.#filter
    const needed = (types ?? ops) !== undefined || this.#last !== undefined ? [FILTERS] : []
    if (this.#name !== undefined) needed.push(CURSORS)
    if (this.#store === undefined || needed.length > 0) {
      const read = checked(await this.#connection.call("hello", ""))
      const hello = valueOf(read.body) as Partial<Hello> | null
      const missing = needed.filter((feature) => hello?.features?.includes(feature) !== true)
      if (missing.length > 0) throw new ProtocolError(`the daemon is older: it has no ${missing.join(", ")}`)
      this.#store ??= hello?.store
      if (this.#last === 0) {
        // What is stored from now on, also if the next request has to be repeated.
        this.#last = undefined
        this.#after = read.position ?? 0
        this.#begins = this.#name !== undefined
      }
    }
    let quietSince = this.#connection.now()
    for (;;) {
      const left = quietSince + this.#idleMs - this.#connection.now()
      const waitMs = Math.trunc(Math.max(0, Math.min(this.#waitMaxMs, left)))
      const read = await this.#ask(waitMs)
      if (read === undefined) return
      const records = arrayOf(checked(read).body) as StoredRecord[]
      const next = this.#nextOf(read)
      this.#seen.take(read, read.begunAfter ?? this.#after, records)
      this.#begins = false
      this.#after = next
      this.#epoch = read.epoch
      for (const record of records) {
        if (this.#name !== undefined) record.cursor = this.#name
        yield record
        await this.#commitDue({ position: record.position, epoch: record.epoch })
      }
      // Only an answer that was not waited for is sure to hold everything that was acknowledged before.
      const ends = records.length === 0 && waitMs === 0 && this.#after >= (read.position ?? 0)
      await this.#commitDue({ position: this.#after, epoch: this.#epoch }, ends)
      if (ends) return
      if (records.length > 0) quietSince = this.#connection.now()
    }
  }

  /** Sets the cursor to what the caller is done with, if it is time for it. */
  async #commitDue(done: { position: number; epoch: string | undefined }, ends = false): Promise<void> {
    if (this.#commitEveryMs === undefined || done.position <= this.#setTo) return
    const now = this.#connection.now()
    if (!ends && now - this.#setAt < this.#commitEveryMs) return
    this.#setTo = done.position
    this.#setAt = now
    checked(await this.#connection.call("setCursor", textOf({ name: this.#name, store: this.#store, ...done })))
  }

  /** Returns where to go on: never before where it stands, or records would come twice. */
  #nextOf({ next }: Read): number {
    if (Number.isSafeInteger(next) && (next as number) >= this.#after) return next as number
    throw new ProtocolError(`an answer to readAll that goes on at ${shortened(next)} after ${this.#after}`)
  }

  /** Returns the next answer, or nothing where the storage was closed. */
  async #ask(waitMs: number): Promise<Read | undefined> {
    const last = this.#last
    const start = last === undefined ? { after: this.#after } : { last }
    const place = this.#begins ? { name: this.#name, ...start } : { after: this.#after, waitMs, epoch: this.#epoch }
    const args = { ...place, store: this.#store, ...this.#filter }
    try {
      return await this.#connection.call("readAll", textOf(args), this.#begins ? 0 : waitMs)
    } catch (error) {
      if (error instanceof ClosedError) return undefined
      throw error
    }
  }
}
