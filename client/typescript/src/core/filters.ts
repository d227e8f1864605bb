// What reads take besides ids, as arguments of the protocol. No I/O.

import { InvalidArgument } from "./errors.js"
import type { FollowOptions } from "./follow.js"
import type { ReadOp } from "./reads.js"

/** A position, or a time. */
export type AsOf = number | Date

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

/** Which jobs or runs are listed, and in which direction. */
export interface SummaryArguments {
  /** Only this job, or its runs. */
  jobId?: string
  /**
   * Only those whose job, run or expert contains this text; upper and lower case of ASCII are one. A page may have
   * fewer items then, or none: go on until there is no `next`.
   */
  contains?: string
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
export interface ReadAllArguments extends Pick<FollowOptions, "after" | "jobId" | "runId" | "types" | "ops" | "omit" | "last"> {
  /** Number of records at most; by default what the daemon gives at most. */
  limit?: number
  /** Of the record at `after`, where it was kept. */
  epoch?: string
}

export type ListOp = Exclude<Extract<ReadOp, `get${string}`>, "getEvent">

/** Returns arguments as the protocol has them. Throws InvalidArgument where `asOf` is no position and no time. */
export function withAsOf<T extends { asOf?: AsOf | undefined }>(args: T): Omit<T, "asOf"> & { asOf?: unknown } {
  const { asOf } = args
  if (asOf === undefined) return args
  if (asOf instanceof Date && !Number.isNaN(asOf.getTime())) return { ...args, asOf: { timeMs: asOf.getTime() } }
  if (Number.isSafeInteger(asOf)) return args
  throw new InvalidArgument("asOf must be a position or a Date")
}
