// Conditions of stores: values that are stored all or none. No I/O.

import { Refused, type WireError } from "./errors.js"
import type { Limits } from "./frames.js"

export type StoreOp = "storeJob" | "storeCheckpoint" | "storeEvent" | "storeRunSetting"
export type DeleteOp = "deleteJob" | "deleteRun"
/** What a frame with a number of the session may ask for. */
export type FrameOp = StoreOp | DeleteOp | "store"

/** The operation of a frame that holds several values. */
export const BATCH_OP = "store"
/** More than operation and length of a value take in the header of a frame, and more than the rest of it takes. */
const ITEM_HEADER_BYTES = 40
const HEADER_BYTES = 512

/** What must hold for stores. Those that share one travel together; the others don't. */
export interface Condition {
  /** Count of the numbers that a store with it takes beyond the first one. */
  readonly extra: number
  /** Returns the fields of the frame's header, each after a comma. */
  header(): string
}

/** Nothing must hold, but nothing else travels along: what shares a frame with a refused deletion is refused too. */
export class Alone implements Condition {
  readonly extra = 0

  header(): string {
    return ""
  }
}

/** The values of an atomic batch are stored all or none: it is one store, which has several numbers. */
export class AllOrNone implements Condition {
  readonly extra: number

  /** `items` has the operation and the count of bytes of each value. */
  constructor(readonly items: readonly (readonly [StoreOp, number])[]) {
    this.extra = items.length - 1
  }

  header(): string {
    const items = this.items.map(([op, size]) => `["${op}",${size}]`)
    return `,"items":[${items.join()}],"atomic":true`
  }

  /** Throws Refused if a daemon with these limits takes no such frame. */
  check(size: number, limits: Limits): void {
    const count = this.items.length
    const header = HEADER_BYTES + ITEM_HEADER_BYTES * count
    const message =
      count > limits.batchItems
        ? `an atomic batch holds at most ${limits.batchItems} values, not ${count}`
        : `an atomic batch must fit into a frame of ${limits.frameBytes} bytes`
    if (count > limits.batchItems || header + size > limits.frameBytes) {
      throw new Refused(BATCH_OP, { code: "TOO_LARGE", message, retryable: false })
    }
  }

  /** Returns the operation of the value that was refused, and its index, where the daemon names it. */
  refusedItem(error: WireError): readonly [StoreOp, number] | undefined {
    const found = error.item === undefined ? undefined : this.items[error.item]
    return found === undefined || error.item === undefined ? undefined : [found[0], error.item]
  }
}
