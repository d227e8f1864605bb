// The stores of a connection that have no outcome yet: counted, bounded, and waited for.

import { TooMuchOutstanding } from "../core/errors.js"
import type { Target } from "../wire/target.js"

/** Counts of stores: their outcomes come in the order of the calls. */
export class OutstandingStores {
  readonly #target: Target
  /** Each waits until a count of stores is finished; in order. */
  #flushes: { finished: number; resolve: () => void }[] = []
  #called = 0
  #finished = 0
  #bytes = 0

  constructor(target: Target) {
    this.#target = target
  }

  /** How many were called for so far. */
  get called(): number {
    return this.#called
  }

  /** How many have their outcome. */
  get finished(): number {
    return this.#finished
  }

  checkRoom(): void {
    const { maxOutstanding, maxOutstandingBytes } = this.#target
    const outstanding = this.#called - this.#finished
    if (outstanding >= maxOutstanding || this.#bytes >= maxOutstandingBytes) {
      throw new TooMuchOutstanding(
        `${outstanding} stores with ${this.#bytes} bytes are unanswered: await some of them first`,
      )
    }
  }

  /** One more was called for. */
  begin(bytes: number): void {
    this.#called += 1
    this.#bytes += bytes
  }

  /** One has its outcome. */
  finish(bytes: number): void {
    this.#finished += 1
    this.#bytes -= bytes
  }

  /** Waits until every store called for so far has its outcome. */
  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#flushes.push({ finished: this.#called, resolve })
      this.endFlushes()
    })
  }

  /** Ends the flushes whose stores are finished. */
  endFlushes(): void {
    while ((this.#flushes[0]?.finished ?? Infinity) <= this.#finished) this.#flushes.shift()?.resolve()
  }
}
