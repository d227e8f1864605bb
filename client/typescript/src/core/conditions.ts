// Conditions of stores: values that are stored all or none, and jobs that nobody else stores for. No I/O.

import type { WireError } from "./errors.js"
import type { Limits } from "./frames.js"

export type StoreOp = "storeJob" | "storeCheckpoint" | "storeEvent" | "storeRunSetting"
export type DeleteOp = "deleteJob" | "deleteRun" | "redactRunSetting"
/** What a frame with a number of the session may ask for. */
export type FrameOp = StoreOp | DeleteOp | "store"

/** The operation of a frame that holds several values. */
export const BATCH_OP = "store"
/** More than operation and length of a value take in the header of a frame, and more than the rest of it takes. */
const ITEM_HEADER_BYTES = 40
const HEADER_BYTES = 2048

/** What must hold for stores. Those that share one travel together; the others don't. */
export interface Condition {
  /** Count of the numbers that a store with it takes beyond the first one. */
  readonly extra: number
  /** Returns the fields of the frame's header, each after a comma. */
  header(): string
  /** Returns the error of stores of `size` bytes, if this daemon can't take them. */
  problem(size: number, limits: Limits): WireError | undefined
  /** Takes the (first) position of a store that was stored. */
  stored(position: number): void
}

/** Nothing must hold, but nothing else travels along: what shares a frame with a refused deletion is refused too. */
export class Alone implements Condition {
  readonly extra = 0

  header(): string {
    return ""
  }

  problem(): WireError | undefined {
    return undefined
  }

  stored(): void {
    // nothing moves
  }
}

/** Nobody but this session has stored for a job, or a run of it, after a position. */
export class Fence implements Condition {
  readonly extra = 0
  readonly #owner: string

  /** `position` is that of the read that the program goes by; it moves on with each store that is answered. */
  constructor(
    jobId: string,
    runId: string | undefined,
    public position: number,
  ) {
    this.#owner = JSON.stringify({ jobId, runId }).slice(0, -1)
  }

  header(): string {
    return `,"expect":${this.#owner},"position":${this.position}}`
  }

  problem(_size: number, limits: Limits): WireError | undefined {
    return lacking(limits, "expect")
  }

  stored(position: number): void {
    this.position = Math.max(this.position, position)
  }
}

/** The values of an atomic batch are stored all or none: it is one store, which has several numbers. */
export class AllOrNone implements Condition {
  readonly extra: number

  /** `items` has the operation and the count of bytes of each value. */
  constructor(
    readonly items: readonly (readonly [StoreOp, number])[],
    readonly fence?: Fence,
  ) {
    this.extra = items.length - 1
  }

  header(): string {
    const items = this.items.map(([op, size]) => `["${op}",${size}]`)
    return `,"items":[${items.join()}],"atomic":true${this.fence?.header() ?? ""}`
  }

  problem(size: number, limits: Limits): WireError | undefined {
    const missing = lacking(limits, "atomic") ?? this.fence?.problem(size, limits)
    if (missing !== undefined) return missing
    const count = this.items.length
    const header = HEADER_BYTES + ITEM_HEADER_BYTES * count
    if (count <= limits.batchItems && header + size <= limits.frameBytes) return undefined
    const message =
      count > limits.batchItems
        ? `an atomic batch holds at most ${limits.batchItems} values, not ${count}`
        : `an atomic batch must fit into a frame of ${limits.frameBytes} bytes`
    return { code: "TOO_LARGE", message, retryable: false }
  }

  stored(position: number): void {
    this.fence?.stored(position + this.extra)
  }

  /** Returns the operation of the value that was refused, where the daemon names it. */
  refusedOp(error: WireError): StoreOp | undefined {
    return error.item === undefined ? undefined : this.items[error.item]?.[0]
  }
}

function lacking(limits: Limits, feature: string): WireError | undefined {
  if (limits.features.has(feature)) return undefined
  const message = `this daemon does not know ${JSON.stringify(feature)} and would ignore it: update the daemon`
  return { code: "UNKNOWN_OPERATION", message, retryable: false }
}
