// The timer of a connection: it ticks the clock while something is outstanding, and wakes when a limit is due.

import type { ListeningClock } from "./clock.js"

/** Calls back with the time up to which limits hold, or with undefined after a standstill. */
export class DueTimer {
  readonly #clock: ListeningClock
  readonly #wake: (limitsAt: number | undefined) => void
  #timer: NodeJS.Timeout | undefined
  #at = Infinity
  #ticking = false

  constructor(clock: ListeningClock, wake: (limitsAt: number | undefined) => void) {
    this.#clock = clock
    this.#wake = wake
  }

  /** Wakes when `due` has come; Infinity: nothing is outstanding. */
  set(now: number, due: number): void {
    if (due === Infinity) {
      this.stop()
      this.#ticking = false
      return
    }
    if (!this.#ticking) this.#clock.tick(true)
    this.#ticking = true
    const tickAt = now + this.#clock.tickMs
    const at = this.#clock.trusted ? Math.min(due, tickAt) : tickAt
    if (at < this.#at) {
      // Later ones stay: it fires too early then, and is set again.
      clearTimeout(this.#timer)
      this.#at = at
      this.#timer = setTimeout(() => this.#fired(), Math.max(Math.ceil(at - now), 1))
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#at = Infinity
  }

  #fired(): void {
    this.#timer = undefined
    this.#at = Infinity
    this.#clock.tick()
    const limitsAt = this.#clock.trusted ? this.#clock.now() : undefined
    // Timers come before the sockets in a turn of the event loop: first what has arrived is taken.
    setImmediate(() => this.#wake(limitsAt))
  }
}
