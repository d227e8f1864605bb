// What a storage reads.

import { SeenEpochs } from "../core/epochs.js"
import { InvalidArgument, ProtocolError } from "../core/errors.js"
import {
  type ListOp,
  type PageArguments,
  type ReadAllArguments,
  type ReadOptions,
  type SummaryArguments,
  withAsOf,
} from "../core/filters.js"
import { type FollowOptions, Follow } from "../core/follow.js"
import { arrayOf, textOf, valueOf } from "../core/jsonio.js"
import { checked, type Read, type ReadOp } from "../core/reads.js"
import type { RunEvent } from "../core/events.js"
import type {
  Checkpoint,
  Deletion,
  EventMeta,
  Hello,
  Job,
  JobSummary,
  NamedCursor,
  Page,
  RunSetting,
  RunSummary,
  Size,
  StoredRecord,
} from "../core/shapes.js"
import type { Stats } from "../core/stats.js"
import { performance } from "node:perf_hooks"

import type { Connection } from "./connection.js"
import { ResumedJob } from "./resumed.js"

/** The reading half of `DaemonStorage`. */
export class Reads {
  readonly #connection: Connection
  readonly #timeoutMs: number
  readonly #seen = new SeenEpochs()

  constructor(connection: Connection, timeoutMs: number) {
    this.#connection = connection
    this.#timeoutMs = timeoutMs
  }

  /** Returns a job, or undefined where it is unknown. */
  async retrieveJob<T extends object = Job>(jobId: string, { asOf }: ReadOptions = {}): Promise<T | undefined> {
    return ((await this.#value("retrieveJob", { jobId, asOf })) as T | null) ?? undefined
  }

  /** Returns all jobs by `startedAt`, newest first. */
  async getAllJobs<T extends object = Job>(): Promise<T[]> {
    return (await this.#value("getAllJobs", {})) as T[]
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

  /** Returns the settings of all runs by `updatedAt`, newest first. */
  async getAllRuns<T extends object = RunSetting>(): Promise<T[]> {
    return (await this.#value("getAllRuns", {})) as T[]
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

  /** Returns a piece of a listing: `page("getAllJobs", { limit: 100 })`, then again with its `next` as `after`. */
  async page<T extends object = Record<string, unknown>>(op: ListOp, args: PageArguments = {}): Promise<Page<T>> {
    const asked = withAsOf(args)
    const read = checked(await this.#connection.call(op, textOf(asked)), asked)
    const page = pageOf<T>(read)
    return read.asOf === undefined ? page : { ...page, asOf: read.asOf }
  }

  /** Returns summaries of the jobs that any record names, those that began last first. */
  async listJobs(args: SummaryArguments = {}): Promise<Page<JobSummary>> {
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

  async #value(op: ReadOp, args: object): Promise<unknown> {
    const asked = withAsOf(args)
    return valueOf(checked(await this.#connection.call(op, textOf(asked)), asked).body)
  }
}

function pageOf<T>(read: Read): Page<T> {
  const items = arrayOf(checked(read).body) as T[]
  return { items, next: read.next, position: read.position ?? 0 }
}
