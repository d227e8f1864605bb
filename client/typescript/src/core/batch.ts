// Stores that travel together, and what became of them.

import type { Condition, FrameOp } from "./conditions.js"
import type { WireError } from "./errors.js"

export type { StoreOp } from "./conditions.js"

/** The (first) position of a store, or what the daemon refused it with. */
export type Outcome = number | WireError

/** One store: its bytes are those of the value at the call. An atomic batch is one store. */
export interface Store {
  readonly op: FrameOp
  readonly condition?: Condition | undefined
  readonly body: Uint8Array
  /** When it was called for. */
  readonly calledAt: number
  /** Told once: the outcome, or why there is none. Called in the order of the stores. */
  readonly settle: (outcome: Outcome | Error) => void
}

/** Stores with consecutive numbers that travel in one frame, or one store that travels in parts. */
export class Batch {
  /** Those without an outcome. */
  stores: Store[] = []
  bytes = 0
  parts = 1
  nextPart = 0
  sentAt = 0
  sentEver = false
  /** Each of its stores has a final outcome; they are settled when those before are, too. */
  done = false
  /** What the last answer was, where it asked for a retry. */
  error: WireError | undefined
  readonly #settled: [Store, Outcome][] = []

  /** `first` is the number of the first store that has no final outcome. */
  constructor(
    public first: number,
    readonly calledAt: number,
    readonly condition?: Condition,
  ) {}

  /** Count of the numbers of the stores without an outcome. */
  get numbers(): number {
    return this.stores.length === 0 ? 0 : this.stores.length + (this.condition?.extra ?? 0)
  }

  add(store: Store): void {
    this.stores.push(store)
    this.bytes += store.body.length
  }

  /** Takes outcomes of its stores from the first on; returns the error that asks for a retry, if any. */
  take(outcomes: readonly Outcome[]): WireError | undefined {
    for (const [i, outcome] of outcomes.entries()) {
      if (typeof outcome !== "number" && outcome.retryable) {
        // What comes after it goes along: its numbers must follow without a gap.
        this.#keep(outcomes.slice(0, i))
        return outcome
      }
    }
    this.#keep(outcomes)
    this.done = true
    return undefined
  }

  #keep(outcomes: readonly Outcome[]): void {
    for (const [i, outcome] of outcomes.entries()) {
      const store = this.stores[i]
      if (store === undefined) return
      this.bytes -= store.body.length
      this.#settled.push([store, outcome])
    }
    const before = this.numbers
    this.stores.splice(0, outcomes.length)
    this.first += before - this.numbers
  }

  /** Settles its stores: with what is known, and those without an outcome with `reason`. */
  settle(reason?: (batch: Batch) => Error): void {
    for (const [store, outcome] of this.#settled) store.settle(outcome)
    if (reason === undefined) return
    for (const store of this.stores) store.settle(reason(this))
  }
}
