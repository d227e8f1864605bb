// A daemon that is not there: noticed early where none can be listening, and told to a person at a terminal.

import { shellWord } from "../core/escape.js"
import type { Target } from "../wire/target.js"
import { existsSync, writeSync } from "node:fs"
import { join } from "node:path"
import { isatty } from "node:tty"

/** A daemon that is being started again has so long to make its socket. */
const RESTART_MS = 1000
const TELL_AFTER_MS = 1000
const STDERR = 2

/** What a connection knows of a daemon that it has not reached; times as in `ListeningClock`. */
export class Absence {
  readonly #target: Target
  #met = false
  #missingSince: number | undefined
  #waitingSince: number | undefined
  #told = false

  constructor(target: Target) {
    this.#target = target
  }

  /** A connection is finished. From now on a socket that is missing means a restart, which is ridden out. */
  met(): void {
    this.#met = true
    this.#missingSince = this.#waitingSince = undefined
    this.#told = false
  }

  /** Notes that a call waits for a connection; after a second a line says so. */
  waits(now: number): void {
    this.#waitingSince ??= now
    if (now - this.#waitingSince >= TELL_AFTER_MS) this.#tell("waiting for a daemon")
  }

  /** Nobody waits any more. */
  rests(): void {
    this.#waitingSince = undefined
  }

  /**
   * Whether a connection may be tried. It may not where the endpoint is that of a base, no daemon was met, and there
   * is no socket; "never" says that there is no use in waiting for one. Where a daemon has served the base before it
   * may be starting again, and has a second.
   */
  look(now: number): "try" | "wait" | "never" {
    const { base, endpoint } = this.#target
    if (this.#met || base === undefined) return "try"
    if (existsSync(endpoint.slice("ipc://".length))) {
      this.#missingSince = undefined
      return "try"
    }
    this.#missingSince ??= now
    if (now - this.#missingSince < RESTART_MS && existsSync(join(base, ".stored"))) return "wait"
    this.#tell("no daemon")
    return "never"
  }

  /** The command that starts a daemon there. */
  get command(): string {
    const { endpoint, base } = this.#target
    const where = base === undefined ? `--bind ${shellWord(endpoint)} --base-path ...` : `--base-path ${shellWord(base)}`
    return `perstack-stored serve ${where}`
  }

  /** Once, and to a terminal only: a program may swallow the error in which all of this stands as well. */
  #tell(what: string): void {
    if (this.#told || !isatty(STDERR)) return
    this.#told = true
    const line = `perstack-storage-client: ${what} at ${shellWord(this.#target.endpoint)}; start one: ${this.command}\n`
    try {
      writeSync(STDERR, line) // not by process.stderr: in a thread that waits for the owner's event loop
    } catch {
      // The error of the call says it too.
    }
  }
}
