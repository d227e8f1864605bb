// The time that a daemon has had to answer in. It stands still while the event loop does.

import { performance } from "node:perf_hooks"

const TICK_MAX_MS = 50
/** After this count of late ticks in a row limits hold all the same: a loop that is always busy must come to an end too. */
const LATE_TICKS_MAX = 10

/**
 * A steady clock in milliseconds, for limits on the daemon's silence.
 *
 * A program that computes, waits for a child process, or is stopped can neither send nor take an answer; such time
 * must not count against the daemon. So a timer ticks while something is outstanding, and the clock counts at most
 * twice the distance of two ticks from one to the next, however long that took.
 */
export class ListeningClock {
  readonly tickMs: number
  #shown = 0 // at the last tick
  #tickedAt = performance.now()
  #lateTicks = 0

  /** The shortest limit that is to be measured decides how often it ticks. */
  constructor(limitMs: number) {
    this.tickMs = Math.min(TICK_MAX_MS, Math.max(limitMs / 20, 1))
  }

  now(): number {
    return this.#shown + Math.min(performance.now() - this.#tickedAt, 2 * this.tickMs)
  }

  /** The timer was started, or fired. */
  tick(started = false): void {
    const now = performance.now()
    const late = !started && now - this.#tickedAt > 2 * this.tickMs
    this.#shown = this.now()
    this.#tickedAt = now
    this.#lateTicks = late ? this.#lateTicks + 1 : 0
  }

  /**
   * Whether a limit that was passed may have its effect. After a standstill it may not before the next tick:
   * until then what is unsent is sent, and what has arrived is taken.
   */
  get trusted(): boolean {
    return this.#lateTicks === 0 || this.#lateTicks >= LATE_TICKS_MAX
  }
}
