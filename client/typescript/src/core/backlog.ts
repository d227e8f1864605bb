// Stores that are called for beyond the window: they wait here, in order, until the queue has room.
// No sockets and no clocks, as in `stores.ts`.

import { Batch, type Store } from "./batch.js"
import type { Limits } from "./frames.js"
import { BATCH_BYTES_MAX, type StoreQueue } from "./stores.js"

/** Taken ones are cut off when their count reaches this: shifting each would move the whole array. */
const CUT_MIN = 4096

/** The stores that wait for the queue of a session. */
export class Backlog {
  readonly #stores: StoreQueue
  readonly #limits: Limits
  #waiting: Store[] = []
  #taken = 0

  constructor(stores: StoreQueue, limits: Limits) {
    this.#stores = stores
    this.#limits = limits
  }

  get empty(): boolean {
    return this.#taken === this.#waiting.length
  }

  /** When the first of them was called for; infinity if there is none. */
  get oldestAt(): number {
    return this.#waiting[this.#taken]?.calledAt ?? Infinity
  }

  /** Puts a store into the queue, or where that has no room, after what waits here. */
  append(store: Store): void {
    if (this.empty && this.#fits(store)) this.#stores.add(store)
    else this.#waiting.push(store)
  }

  /** Puts as much into the queue as it has room for. */
  move(): void {
    for (let next = this.#waiting[this.#taken]; next !== undefined && this.#fits(next); ) {
      this.#stores.add(next)
      next = this.#advance()
    }
  }

  /** Takes out what was called for up to the time `through`; nothing of it was ever sent. */
  abandon(through: number): Batch[] {
    const gone: Batch[] = []
    for (let next = this.#waiting[this.#taken]; next !== undefined && next.calledAt <= through; ) {
      const batch = new Batch(0, next.calledAt)
      batch.add(next)
      gone.push(batch)
      next = this.#advance()
    }
    return gone
  }

  #fits(store: Store): boolean {
    // Whether a large one must travel in parts depends on what the daemon grants.
    const known = store.body.length <= BATCH_BYTES_MAX || this.#limits.known
    return known && this.#stores.hasRoom(store.body.length)
  }

  #advance(): Store | undefined {
    this.#taken += 1
    if (this.empty || this.#taken >= CUT_MIN) {
      this.#waiting = this.#waiting.slice(this.#taken)
      this.#taken = 0
    }
    return this.#waiting[this.#taken]
  }
}
