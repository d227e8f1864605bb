// Daemons for tests: `perstack-storage-client/testing`, for node:test, vitest, jest and others.
//
// A daemon ends with this process, however that ends: it watches a pipe from here (`--stop-with-stdin`).

import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { env } from "node:process"
import { setTimeout as sleep } from "node:timers/promises"

import { EndpointError } from "./core/errors.js"
import { resolveBase, socketPathOf } from "./wire/endpoint.js"

const START_MS = 60_000
const STOP_MS = 30_000
const POLL_MS = 5
const LOG_CHARS = 4000
const READY = '"event": "ready"'
/** Small segments: the daemon fills the next one with zeros before it needs it. */
const FLAGS = [
  "--stop-with-stdin",
  "--log-format=json",
  `--segment-bytes=${1 << 20}`,
  `--first-segment-bytes=${1 << 16}`,
]

export interface DaemonOptions {
  /** A base that stays after `close`; without it a temporary one, which `close` removes. */
  basePath?: string
  /** The daemon's command, such as `["/opt/stored/bin/perstack-stored"]`; else the one on PATH. */
  command?: readonly string[]
  /** More flags of `perstack-stored serve`. */
  flags?: readonly string[]
}

/** A daemon of a test, which serves a Unix socket. */
export class TestDaemon {
  readonly basePath: string
  /** For clients: `createStorage({ endpoint })`. */
  readonly endpoint: string
  /** The file of its log, JSON lines. */
  readonly log: string
  readonly #options: DaemonOptions
  readonly #folder: string | undefined
  #child: ChildProcess | undefined
  #ended: Promise<string> = Promise.resolve("")
  #logStart = 0

  /** @internal `startDaemon` makes one. */
  constructor(options: DaemonOptions) {
    this.#options = options
    if (options.basePath === undefined) this.#folder = temporaryFolder()
    this.basePath = resolveBase(options.basePath ?? join(this.#folder ?? "", "base"))
    this.endpoint = `ipc://${socketPathOf(this.basePath)}`
    this.log = `${this.basePath}.log`
  }

  /** Starts it again after `stop` or `kill`, and waits until it serves; rejects with the end of its log. */
  async start(): Promise<void> {
    if (this.#child !== undefined) throw new Error("it was started before")
    mkdirSync(dirname(this.basePath), { recursive: true })
    const log = openSync(this.log, "a")
    this.#logStart = readFileSync(this.log).length
    const [program = "perstack-stored", ...before] = this.#options.command ?? []
    const place = ["serve", "--base-path", this.basePath, "--bind", this.endpoint]
    // Ctrl-C at a terminal is for the tests. The pipe's end says that this process has ended.
    const child = spawn(program, [...before, ...place, ...FLAGS, ...(this.#options.flags ?? [])], {
      stdio: ["pipe", log, log],
      env: withoutSettings(),
      detached: true,
    })
    closeSync(log)
    this.#child = child
    this.#ended = new Promise((resolve) => {
      child.once("error", (error) => resolve(error.message))
      child.once("exit", (code, signal) => resolve(`it ended with ${signal ?? `status ${code}`}`))
    })
    child.stdin?.on("error", () => undefined) // it has ended; nothing is written there
    await this.#ready(child)
    // A test that forgets to close it can end all the same.
    child.unref()
    if (child.stdin !== null && "unref" in child.stdin) (child.stdin as unknown as { unref(): void }).unref()
  }

  async #ready(child: ChildProcess): Promise<void> {
    let how = ""
    void this.#ended.then((end) => (how = end))
    const deadline = performance.now() + START_MS
    while (!this.#said().includes(READY)) {
      await sleep(POLL_MS)
      if (how === "" && performance.now() < deadline) continue
      child.kill("SIGKILL")
      this.#child = undefined
      const help = how.includes("ENOENT") ? "; install the daemon, or name its `command`" : ""
      const said = this.#said().slice(-LOG_CHARS)
      throw new Error(`perstack-stored did not start: ${how || "it is too slow"}${help}; its log ${this.log}:\n${said}`)
    }
  }

  #said(): string {
    return readFileSync(this.log).subarray(this.#logStart).toString()
  }

  /** Stops it as an operator does: what was stored is in the tree then. */
  async stop(): Promise<void> {
    await this.#end("SIGTERM")
  }

  /** Kills it, as a crash does. What was acknowledged is there after `start`. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL")
  }

  /** Ends it. A temporary base is removed. */
  async close(): Promise<void> {
    if (this.#folder === undefined) return this.stop()
    await this.kill()
    // Its workers end with it, a moment later.
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined) return
    this.#child = undefined
    child.ref()
    child.kill(signal)
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS)
    await this.#ended
    clearTimeout(late)
    child.stdin?.destroy()
  }
}

/** Starts a daemon for tests, and waits until it serves: some 0.4 s. Share it, and close it at the end. */
export async function startDaemon(options: DaemonOptions = {}): Promise<TestDaemon> {
  const daemon = new TestDaemon(options)
  try {
    await daemon.start()
  } catch (error) {
    await daemon.close()
    throw error
  }
  return daemon
}

/** A folder with room for the name of a socket; /tmp where the usual place is too deep. */
function temporaryFolder(): string {
  for (const parent of [tmpdir(), "/tmp"]) {
    const folder = realpathSync(mkdtempSync(join(parent, "perstack-")))
    try {
      socketPathOf(join(folder, "base"))
      return folder
    } catch (error) {
      rmSync(folder, { recursive: true })
      if (!(error instanceof EndpointError)) throw error
    }
  }
  throw new EndpointError("no temporary folder is short enough for a Unix socket: give `basePath`")
}

/** Settings of the person who tests are not for this daemon, nor is a service manager's socket. */
function withoutSettings(): NodeJS.ProcessEnv {
  const foreign = (name: string) => /^(PERSTACK_STORED_.*|NOTIFY_SOCKET|LISTEN_FDS)$/.test(name)
  return Object.fromEntries(Object.entries(env).filter(([name]) => !foreign(name)))
}
