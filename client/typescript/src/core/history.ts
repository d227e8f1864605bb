// What a connection knows of the history that its daemons share. No I/O.

import { OtherHistory, type StorageError } from "./errors.js"
import type { Limits } from "./frames.js"

const SHOWN_CHARS_MAX = 64

/** Its name, and the highest position of it that was seen. */
export class SharedHistory {
  /** The name of the history; "" before a daemon was met. */
  store = ""
  position = 0

  /** `several` says whether the connection may go over to other daemons. */
  constructor(readonly several: boolean) {}

  /** Returns why a daemon must not be used, by its `hello`; else notes its history. */
  problem(limits: Limits): StorageError | undefined {
    if (!this.several) {
      if (limits.store !== this.store) this.position = 0 // positions of another history mean nothing here
      this.store = limits.store
      return undefined
    }
    if (!limits.replicated) {
      return new OtherHistory(
        "it shares its history with no other daemon: a client with several endpoints needs daemons of one replicated journal",
      )
    }
    if (this.store !== "" && limits.store !== this.store) {
      const [theirs, ours] = [limits.store, this.store].map((name) => name.slice(0, SHOWN_CHARS_MAX))
      return new OtherHistory(`it serves the history ${theirs}, not ${ours}`)
    }
    this.store = limits.store
    return undefined
  }

  /** Notes a position that was in an answer. */
  note(position: number): void {
    if (position > this.position) this.position = position
  }
}
