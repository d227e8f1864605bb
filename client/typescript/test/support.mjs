// What the tests share: real daemons on real folders, started from the checkout's .venv; values to store.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..")
export const DATA = join(ROOT, "tests/data")
export const PYTHON = join(ROOT, ".venv/bin/python")
const START_MS = 30_000

/** Polls until the condition holds. */
export async function eventually(condition, what, milliseconds = 20_000) {
  const deadline = performance.now() + milliseconds
  while (!(await condition())) {
    assert.ok(performance.now() < deadline, `not within ${milliseconds} ms: ${what}`)
    await sleep(10)
  }
}

/** Stands for the context of all tests of a file or group: `end` is for their `after`. */
export class Shared {
  #ends = []

  after(end) {
    this.#ends.push(end)
  }

  async end() {
    for (const end of this.#ends) await end()
  }
}

const running = new Set()

/** A folder that is removed after the test, or after all tests of the file; the daemons in it end before. */
export function temporaryFolder(context) {
  const folder = mkdtempSync(join(tmpdir(), "perstack-ts-"))
  context.after(async () => {
    for (const daemon of running) if (daemon.base.startsWith(folder)) await daemon.kill()
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
  })
  return folder
}

/** A daemon process on a base. */
export class Daemon {
  constructor(base, flags = []) {
    this.base = base
    this.flags = flags
    this.endpoint = `ipc://${base}/.stored/stored.sock`
    this.log = `${base}.log`
  }

  /** Starts it, and waits until it says that it is ready. */
  async start() {
    assert.ok(existsSync(PYTHON), `${PYTHON} is missing: run make setup in the checkout`)
    const before = existsSync(this.log) ? readFileSync(this.log).length : 0
    const log = openSync(this.log, "a")
    this.process = spawn(PYTHON, ["-m", "perstack_stored", "serve", "--base-path", this.base, ...this.flags], {
      stdio: ["ignore", "ignore", log],
    })
    this.ended = new Promise((resolve) => this.process.once("exit", resolve))
    running.add(this)
    this.ended.then(() => running.delete(this))
    await eventually(
      () => {
        const text = readFileSync(this.log).subarray(before).toString()
        assert.equal(this.process.exitCode, null, `the daemon ended:\n${text}`)
        return text.includes('"event": "ready"')
      },
      "the daemon is ready",
      START_MS,
    )
    return this
  }

  /** SIGKILL, as a crash. */
  async kill() {
    this.process.kill("SIGKILL")
    await this.ended
  }

  /** Starts one for a test, or for a file of tests; killed and removed at its end. */
  static async on(context, base) {
    let daemon
    context.after(() => daemon?.kill())
    daemon = new Daemon(base ?? join(temporaryFolder(context), "perstack"))
    return daemon.start()
  }
}

/** Runs a Node program; returns its exit code, standard output and standard error. */
export async function run(args, options = {}) {
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(PERSTACK_STOR|NODE_)/.test(name)),
  )
  const child = spawn(options.command ?? process.execPath, args, {
    cwd: options.cwd,
    env: { ...environment, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  })
  const output = { stdout: "", stderr: "" }
  for (const name of ["stdout", "stderr"]) child[name].setEncoding("utf8").on("data", (text) => (output[name] += text))
  const [code, signal] = await new Promise((resolve) => child.once("close", (...how) => resolve(how)))
  return { code, signal, ...output }
}

/** Every file of the tree: path below the base, and text. */
export function filesOf(base) {
  const files = {}
  const visit = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) visit(path)
      else files[relative(base, path)] = readFileSync(path, "utf8")
    }
  }
  visit(join(base, "jobs"))
  return files
}

/** Waits until the tree holds all that was stored. */
export async function treeIsComplete(storage) {
  await eventually(async () => (await storage.stats()).tree.lagRecords === 0, "the tree is complete", 60_000)
}

/** Calls made on the reference, the files that it wrote, and its answers. */
export function golden() {
  return JSON.parse(readFileSync(join(DATA, "reference-golden.json"), "utf8"))
}

/** Each store call of a captured run, in call order. */
export function capturedRun(name) {
  const lines = gunzipSync(readFileSync(join(DATA, `perstack-run-${name}.jsonl.gz`))).toString()
  return lines.trimEnd().split("\n").map((line) => JSON.parse(line))
}

/** The same value in another job: "job1" is the captured run's own, others belong to its delegates. */
export function underOtherJob(value, job) {
  if ("jobId" in value) return { ...value, jobId: job }
  return { ...value, id: value.id === "job1" ? job : `${job}.${value.id}` }
}

const usage = { inputTokens: 1, outputTokens: 2, reasoningTokens: 0, totalTokens: 3, cachedInputTokens: 0 }

export function job(id, fields = {}) {
  return {
    id,
    status: "running",
    coordinatorExpertKey: "@acme/writer@1.0.0",
    totalSteps: 0,
    usage,
    startedAt: 1000,
    ...fields,
  }
}

export function checkpoint(jobId, id, fields = {}) {
  return {
    id,
    jobId,
    runId: "r",
    status: "proceeding",
    stepNumber: 1,
    messages: [],
    expert: { key: "@acme/writer@1.0.0", name: "@acme/writer", version: "1.0.0" },
    usage,
    ...fields,
  }
}

export function setting(jobId, fields = {}) {
  return {
    model: "m",
    providerConfig: { providerName: "anthropic", apiKey: "secret" },
    jobId,
    runId: "r",
    expertKey: "@acme/writer@1.0.0",
    input: { text: "hello" },
    experts: {},
    maxRetries: 3,
    timeout: 60_000,
    startedAt: 1000,
    updatedAt: 1000,
    perstackApiBaseUrl: "https://api.perstack.ai",
    env: {},
    ...fields,
  }
}

/** Eight in a row are of one millisecond, step and type: only the order tells them apart. */
export function event(jobId, n, fields = {}) {
  return {
    type: "streamReasoning",
    id: `e${n}`,
    expertKey: "@acme/writer@1.0.0",
    timestamp: 1795406152251 + (n >> 3),
    jobId,
    runId: "r",
    stepNumber: 1,
    n,
    ...fields,
  }
}

export function range(end, start = 0) {
  return Array.from({ length: end - start }, (_, i) => start + i)
}

/** The numbers of a job's events, in the order read. */
export async function numbersOf(storage, jobId) {
  return (await storage.getEventContents(jobId, "r")).map((found) => found.n)
}
