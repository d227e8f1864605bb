// Which of several endpoints a connection uses: one at a time, the next one where it gets nowhere. No I/O.

/** With no answer for so long but errors that ask to try again, the next daemon is asked. */
export const MOVE_AFTER_MS = 2000

/** The endpoints of a connection, in turn. Times are in milliseconds of a steady clock. */
export class Rotation {
  readonly #endpoints: readonly string[]
  #moves = 0
  #movedAt = -Infinity

  constructor(endpoints: readonly string[]) {
    this.#endpoints = endpoints
  }

  /** Whether there is more than one. */
  get several(): boolean {
    return this.#endpoints.length > 1
  }

  /** The one in use. */
  get endpoint(): string {
    return this.#endpoints[this.#moves % this.#endpoints.length] ?? ""
  }

  /** Takes the next one. */
  move(now: number): void {
    this.#moves += 1
    this.#movedAt = now
  }

  /** Returns when the daemon in use has had its time, of what waits since a time (infinity: nothing does). */
  staleAt(waitsSince: number, answeredAt: number): number {
    return Math.max(waitsSince, answeredAt, this.#movedAt) + MOVE_AFTER_MS
  }
}
