// The class: Perstack's eleven calls, and what goes beyond them.

import { SeenEpochs } from "../core/epochs.js"
import { InvalidArgument, messageOf, ProtocolError } from "../core/errors.js"
import { type FollowOptions, Follow } from "../core/follow.js"
import { arrayOf, textOf, valueOf } from "../core/jsonio.js"
import { type AsOf, checked, type Read, type ReadOp, withAsOf } from "../core/reads.js"
import type { RunEvent } from "../core/events.js"
import type {
  Checkpoint,
  CheckpointFields,
  Deletion,
  EventMeta,
  Hello,
  Job,
  JobFields,
  JobSummary,
  NamedCursor,
  Page,
  RunEventFields,
  RunSetting,
  RunSettingFields,
  RunSummary,
  Size,
  StoredRecord,
} from "../core/shapes.js"
import type { Stats } from "../core/stats.js"
import type { CurveKeys } from "../wire/keys.js"
import {
  MAX_OUTSTANDING_BYTES_DEFAULT,
  MAX_OUTSTANDING_DEFAULT,
  MODULES,
  resolveEndpoint,
  TIMEOUT_DEFAULT_MS,
} from "../wire/target.js"
import { performance } from "node:perf_hooks"

import { Alone, type DeleteOp, type StoreOp } from "../core/conditions.js"
import { Connection } from "./connection.js"
import { Pipeline } from "./pipeline.js"
import { ResumedJob, storeAll } from "./resumed.js"

/** How a storage is made; everything may be left out. */
export interface StorageOptions {
  /** The daemon's, such as `ipc:///run/stored.sock`; else PERSTACK_STORED_ENDPOINT, else the socket of the base. */
  endpoint?: string | undefined
  /** The base; else PERSTACK_STORED_BASE, else ./perstack. */
  basePath?: string | undefined
  /** For a daemon that is reached by tcp with CURVE. One that does not let the key in never answers. */
  keys?: CurveKeys | undefined
  /**
   * How long a read waits before it fails. Stores fail when none was answered for so long.
   * A restart of the daemon within it is ridden out.
   */
  timeoutMs?: number | undefined
  /** With this count of stores unanswered, the next one fails with TooMuchOutstanding. */
  maxOutstanding?: number | undefined
  /** The same with this count of bytes; the last store may exceed it. */
  maxOutstandingBytes?: number | undefined
  /**
   * With it `storeEvent` never rejects: its errors come here instead, and its promise resolves. For runtimes
   * that don't await events, where a rejection would end the process.
   */
  onError?: ((error: Error) => void) | undefined
}

/** Arguments of `page`: those of the operation, and where to begin and end. */
export interface PageArguments {
  jobId?: string
  runId?: string
  /** Of `getEventContents`, as the next three. */
  maxStep?: number
  minStep?: number
  types?: string[]
  newestFirst?: boolean
  /** Fields left out of each event or checkpoint: a key, or keys with dots between, as `checkpoint.messages`. */
  omit?: string[]
  /** As it was at a position or time; not of `getAllJobs` and `getAllRuns`. */
  asOf?: AsOf
  /** Number of items at most; all by default. */
  limit?: number
  /** The `next` of the page before. */
  after?: unknown
}

/**
 * As of which position or time a job, checkpoint or events are read: what they were then, of what was not deleted since.
 * A position after the end of the history rejects with PositionGone, a daemon that is older with ProtocolError.
 */
export interface ReadOptions {
  asOf?: AsOf | undefined
}

/** Which jobs or runs are listed, and in which direction; `jobId` is for runs. */
export interface SummaryArguments {
  jobId?: string
  status?: string
  expertKey?: string
  /** Those that began at or after it, in milliseconds since 1970. */
  since?: number
  /** Those that began before it. */
  until?: number
  /** False for the oldest first. */
  newestFirst?: boolean
  /** Number of items at most: 100 by default, and never more than 1,000. */
  limit?: number
  /** The `next` of the page before. */
  after?: unknown
}

/** Which records `readAll` returns; all by default. */
export interface ReadAllArguments extends Pick<FollowOptions, "after" | "jobId" | "runId" | "types" | "ops" | "last"> {
  /** Number of records at most; by default what the daemon gives at most. */
  limit?: number
  /** Of the record at `after`, where it was kept. */
  epoch?: string
}

export type ListOp = Exclude<Extract<ReadOp, `get${string}`>, "getEvent">

/**
 * Perstack's `Storage`, through the daemon. It connects when first used, and keeps the process alive only
 * while something is outstanding.
 *
 * A store takes the value, and its place in the order, at the call, awaited or not; its promise resolves when
 * it is on disk. A read sees every store that was called for before through this storage, awaited or not, and those of
 * others that were acknowledged before. Every call may reject with
 * DaemonUnavailable, Refused or ClosedError; a store also with OutcomeUnknown, InvalidArgument or
 * TooMuchOutstanding. All of them are StorageErrors.
 */
export class DaemonStorage {
  readonly endpoint: string
  readonly #connection: Connection
  readonly #timeoutMs: number
  readonly #seen = new SeenEpochs()
  readonly #onError: ((error: Error) => void) | undefined

  constructor(options: StorageOptions = {}) {
    const { endpoint, base } = resolveEndpoint(options.endpoint, options.basePath)
    this.endpoint = endpoint
    this.#timeoutMs = positive(options.timeoutMs ?? TIMEOUT_DEFAULT_MS, "timeoutMs")
    this.#onError = options.onError
    this.#connection = new Connection({
      endpoint,
      base,
      keys: endpoint.startsWith("ipc://") ? undefined : options.keys,
      timeoutMs: this.#timeoutMs,
      maxOutstanding: positive(options.maxOutstanding ?? MAX_OUTSTANDING_DEFAULT, "maxOutstanding"),
      maxOutstandingBytes: positive(
        options.maxOutstandingBytes ?? MAX_OUTSTANDING_BYTES_DEFAULT,
        "maxOutstandingBytes",
      ),
      modules: MODULES,
    })
  }

  /** Stores a job; of one id the last one counts. */
  async storeJob<T extends JobFields>(job: T): Promise<void> {
    await this.store("storeJob", job)
  }

  /** Returns a job, or undefined where it is unknown. */
  async retrieveJob<T extends object = Job>(jobId: string, { asOf }: ReadOptions = {}): Promise<T | undefined> {
    return ((await this.#value("retrieveJob", { jobId, asOf })) as T | null) ?? undefined
  }

  /** Returns all jobs by `startedAt`, newest first. */
  async getAllJobs<T extends object = Job>(): Promise<T[]> {
    return (await this.#value("getAllJobs", {})) as T[]
  }

  /** Stores a checkpoint; of one id the last one counts. */
  async storeCheckpoint<T extends CheckpointFields>(checkpoint: T): Promise<void> {
    await this.store("storeCheckpoint", checkpoint)
  }

  /** Returns a checkpoint; rejects with CheckpointNotFound where there is none. */
  async retrieveCheckpoint<T extends object = Checkpoint>(
    jobId: string,
    checkpointId: string,
    { asOf }: ReadOptions = {},
  ): Promise<T> {
    return (await this.#value("retrieveCheckpoint", { jobId, checkpointId, asOf })) as T
  }

  /** Returns the checkpoints of a job by `stepNumber`, ties in the order stored. */
  async getCheckpointsByJobId<T extends object = Checkpoint>(
    jobId: string,
    { asOf }: ReadOptions = {},
  ): Promise<T[]> {
    return (await this.#value("getCheckpointsByJobId", { jobId, asOf })) as T[]
  }

  /** Stores an event; the same one again, byte for byte, is kept once. See `onError`. */
  async storeEvent<T extends RunEventFields>(event: T): Promise<void> {
    const stored = this.store("storeEvent", event)
    await (this.#onError === undefined ? stored : stored.catch((error: Error) => this.#report(error)))
  }

  /** Returns time, step and type of the events of a run by `stepNumber`, ties in the order stored. */
  async getEventsByRun<T extends object = EventMeta>(
    jobId: string,
    runId: string,
    { asOf }: ReadOptions = {},
  ): Promise<T[]> {
    return (await this.#value("getEventsByRun", { jobId, runId, asOf })) as T[]
  }

  /** Returns the events of a run by `timestamp`, ties in the order stored, up to a step where one is given. */
  async getEventContents<T extends object = RunEvent>(
    jobId: string,
    runId: string,
    maxStep?: number,
    { asOf }: ReadOptions = {},
  ): Promise<T[]> {
    return (await this.#value("getEventContents", { jobId, runId, maxStep, asOf })) as T[]
  }

  /** Stores the setting of a run; where there is one, only `updatedAt` changes. */
  async storeRunSetting<T extends RunSettingFields>(setting: T): Promise<void> {
    await this.store("storeRunSetting", setting)
  }

  /** Returns the settings of all runs by `updatedAt`, newest first. */
  async getAllRuns<T extends object = RunSetting>(): Promise<T[]> {
    return (await this.#value("getAllRuns", {})) as T[]
  }

  /** Stores a value by the name of its operation; resolves to its position. It always rejects on failure. */
  store(op: StoreOp, value: object): Promise<number> {
    try {
      return this.#connection.store(op, Buffer.from(textOf(value)))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Stores several values all or none, across kinds; resolves to their positions, which follow each other.
   *
   * Where one is refused nothing is stored, and `Refused` has its `index`.
   */
  async storeAtomic(stores: readonly (readonly [StoreOp, object])[]): Promise<number[]> {
    return storeAll(this.#connection, stores)
  }

  /**
   * Reads a job, to go on with it: its stores reject with JobTakenOver once another session has stored for it (with
   * `runId`: for that run).
   *
   * Two programs that resume one job can't both go on with it: the one whose store comes first does, until the other
   * resumes it again. All stores of this storage count as its own.
   */
  async resume<T extends object = Job>(jobId: string, runId?: string): Promise<ResumedJob<T>> {
    const read = checked(await this.#connection.call("retrieveJob", textOf({ jobId })))
    if (read.position === undefined) throw new ProtocolError("an answer to retrieveJob without a position")
    const job = (valueOf(read.body) as T | null) ?? undefined
    return new ResumedJob(this.#connection, job, jobId, runId, read.position)
  }

  /**
   * Deletes a job: all that was stored of it so far, in the order of the calls; resolves to the position.
   *
   * After it no read shows the job, by any client. Late stores of sessions that began before are refused as
   * Deleted, this storage's own too. The daemon must let this client delete, else it rejects with Forbidden.
   */
  deleteJob(jobId: string, why?: string): Promise<number> {
    return this.#delete("deleteJob", { jobId, why })
  }

  /** Deletes a run: its setting, checkpoints and events; the job and its other runs stay. */
  deleteRun(jobId: string, runId: string, why?: string): Promise<number> {
    return this.#delete("deleteRun", { jobId, runId, why })
  }

  /**
   * Puts a setting in the place of all that were stored of its run, which no read shows any more.
   *
   * For secrets that must go while the run stays: `setting` is the stored one without them, at most 256 KiB.
   */
  redactRunSetting<T extends RunSettingFields>(setting: T, why?: string): Promise<number> {
    return this.#delete("redactRunSetting", { jobId: setting.jobId, runId: setting.runId, why, setting })
  }

  /** Returns something to store much with: its stores return at once, and it knows their positions. */
  pipeline(): Pipeline {
    return new Pipeline(this)
  }

  /** Waits until every store called for so far is on disk or has failed; it rejects for none of them. */
  flush(): Promise<void> {
    return this.#connection.flush()
  }

  /** Returns a piece of a listing: `page("getAllJobs", { limit: 100 })`, then again with its `next` as `after`. */
  async page<T extends object = Record<string, unknown>>(op: ListOp, args: PageArguments = {}): Promise<Page<T>> {
    const asked = withAsOf(args)
    const read = checked(await this.#connection.call(op, textOf(asked)), asked)
    const page = pageOf<T>(read)
    return read.asOf === undefined ? page : { ...page, asOf: read.asOf }
  }

  /** Returns summaries of the jobs that any record names, those that began last first. */
  async listJobs(args: Omit<SummaryArguments, "jobId"> = {}): Promise<Page<JobSummary>> {
    return pageOf(await this.#connection.call("listJobs", textOf(args)))
  }

  /** Returns summaries of the runs that any record names, those that began last first. */
  async listRuns(args: SummaryArguments = {}): Promise<Page<RunSummary>> {
    return pageOf(await this.#connection.call("listRuns", textOf(args)))
  }

  /** Returns what was deleted after a position, in order: 100 deletions, or at most `limit`, which is 1,000 at most. */
  async deletions(args: { after?: number; limit?: number } = {}): Promise<Page<Deletion>> {
    return pageOf(await this.#connection.call("deletions", textOf(args)))
  }

  /** Returns how much is stored of a job, or of one of its runs: what a deletion would remove. */
  async sizeOf(jobId: string, runId?: string): Promise<Size> {
    return (await this.#value("sizeOf", { jobId, runId })) as Size
  }

  /** Returns the last position that was stored at a time in ms since 1970 or before it; 0 if none was. */
  async positionAt(timeMs: number): Promise<number> {
    return ((await this.#value("positionAt", { timeMs })) as { position: number }).position
  }

  /** Returns the record at a position, of any kind; rejects with Refused (`NOT_FOUND`) where there is none. */
  async getEvent(position: number): Promise<StoredRecord> {
    return (await this.#value("getEvent", { position })) as StoredRecord
  }

  /**
   * Returns records in the order stored; `next` is the position to go on from. Without a filter no items are the
   * end for now; with one it is where `next` is not below `position`.
   *
   * `epoch` is that of the record at `after`, where it was kept; this storage knows those that it has seen.
   */
  async readAll(args: ReadAllArguments = {}): Promise<Page<StoredRecord>> {
    const after = args.after ?? 0
    const read = await this.#connection.call("readAll", textOf({ ...args, epoch: args.epoch ?? this.#seen.at(after) }))
    const page = pageOf<StoredRecord>(read)
    this.#seen.take(read, read.begunAfter ?? after, page.items)
    return page
  }

  /**
   * Iterates over the records after a position, then over those stored from now on.
   *
   * Each record comes once, in the order stored, over restarts of the daemon too. It ends when the storage is
   * closed, or as `idleMs` says. It rejects with PositionGone where the daemon has another history, or another
   * continuation of this one. To go on later, keep `(await hello()).store`, and the position and epoch of the last
   * record; give all three.
   */
  follow(options: FollowOptions = {}): AsyncGenerator<StoredRecord, void, undefined> {
    return new Follow(this.#connection, options, this.#timeoutMs, this.#seen).records()
  }

  /**
   * Sets the cursor of a record that came from `follow` with a `name`: it and all before it are done. It resolves when
   * that is on disk, and everything that was stored through this storage before. Records of which none was committed
   * come again to the next subscriber of that name.
   */
  async commit(record: StoredRecord): Promise<void> {
    const { cursor, position, epoch } = record
    if (cursor === undefined) throw new InvalidArgument("the record does not come from follow with a name")
    await this.setCursor(cursor, position, epoch === undefined ? {} : { epoch })
  }

  /**
   * Sets a named cursor; there is one from then on. With `force` it may go back. It rejects with PositionGone where the
   * position, of a `store` or an `epoch`, is not in the daemon's history.
   */
  async setCursor(
    name: string,
    position: number,
    options: { force?: boolean; store?: string; epoch?: string } = {},
  ): Promise<void> {
    await this.#value("setCursor", { name, position, ...options })
  }

  /** Returns named cursors by name, at most 100 at a time; `after` is the `next` of the page before. */
  async cursors(args: { limit?: number; after?: string } = {}): Promise<Page<NamedCursor>> {
    return pageOf(await this.#connection.call("cursors", textOf(args)))
  }

  /** Deletes a named cursor; it may be gone already. */
  async deleteCursor(name: string): Promise<void> {
    await this.#value("deleteCursor", { name })
  }

  /** Returns what the daemon says of itself: version, base, name of the history, limits. */
  async hello(): Promise<Hello> {
    return (await this.#value("hello", {})) as Hello
  }

  /** Returns the daemon's counters and gauges. */
  async stats(): Promise<Stats> {
    return (await this.#value("stats", {})) as Stats
  }

  /** Returns the time that a message takes to the daemon and back, in milliseconds. */
  async ping(): Promise<number> {
    const start = performance.now()
    await this.#value("ping", {})
    return performance.now() - start
  }

  /**
   * Lets the calls under way come to their end, un-awaited stores too, then closes the connection.
   *
   * Later calls reject with ClosedError. It takes `timeoutMs` at most if the daemon is away, and never rejects.
   */
  close(): Promise<void> {
    return this.#connection.close()
  }

  #delete(op: DeleteOp, what: { jobId: string; runId?: string; why: string | undefined; setting?: object }): Promise<number> {
    try {
      return this.#connection.store(op, Buffer.from(textOf(what)), new Alone())
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async #value(op: ReadOp, args: object): Promise<unknown> {
    const asked = withAsOf(args)
    return valueOf(checked(await this.#connection.call(op, textOf(asked)), asked).body)
  }

  #report(error: Error): void {
    try {
      // One that is asynchronous may reject.
      Promise.resolve(this.#onError?.(error) as unknown).catch(warn)
    } catch (problem) {
      warn(problem)
    }
  }
}

/** Returns a storage; nothing is connected yet. Throws EndpointError if no endpoint can be derived from the base. */
export function createStorage(options: StorageOptions = {}): DaemonStorage {
  return new DaemonStorage(options)
}

function pageOf<T>(read: Read): Page<T> {
  const items = arrayOf(checked(read).body) as T[]
  return { items, next: read.next, position: read.position ?? 0 }
}

function positive(value: number, name: string): number {
  if (!(value > 0)) throw new InvalidArgument(`${name} must be positive`)
  return value
}

function warn(problem: unknown): void {
  process.emitWarning(`onError of perstack-storage-client failed: ${messageOf(problem)}`)
}
