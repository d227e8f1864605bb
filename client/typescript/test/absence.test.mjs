// Without a daemon a call fails soon, where none can be listening, and a person at a terminal is told.

import assert from "node:assert/strict"
import { mkdirSync, renameSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"

import { createStorage, DaemonUnavailable } from "perstack-storage-client"
import { Daemon, event, numbersOf, PYTHON, range, run, temporaryFolder } from "./support.mjs"

const PACKAGE = fileURLToPath(new URL("..", import.meta.url))
/** Far below the 30 s of a timeout; a busy machine has to start a process and a thread in it. */
const SOON_MS = 8000

/** Runs a program at a pseudo-terminal, or not; returns what it wrote. */
async function program(text, { base, terminal = false }) {
  const environment = { PERSTACK_STORED_BASE: base }
  const node = [process.execPath, "--input-type=module", "-e", text]
  if (!terminal) return run(node.slice(1), { cwd: PACKAGE, env: environment })
  const spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
  return run(["-c", spawn, ...node], { command: PYTHON, cwd: PACKAGE, env: environment })
}

/** Many un-awaited events, an awaited job, a read and a synchronous call, all without a daemon. */
const CALLS = `
  import * as storage from "perstack-storage-client"
  const own = new storage.FileSystemStorage()
  const event = (n) => ({ ...${JSON.stringify(event("j", 0))}, n })
  const started = performance.now()
  const calls = [...Array(200).keys()].map((n) => own.storeEvent(event(n)))
  calls.push(own.getAllJobs(), storage.defaultStoreEvent(event(1)), (async () => storage.getAllRuns())())
  const outcomes = await Promise.allSettled(calls)
  const names = new Set(outcomes.map(({ reason }) => reason?.name + ": " + reason?.message))
  console.log(JSON.stringify([...names, performance.now() - started]))`

test("where no daemon has ever served the base, every call fails at once and says what to do", async (context) => {
  const base = join(temporaryFolder(context), "perstack")
  const { code, stdout, stderr } = await program(CALLS, { base })
  const [message, milliseconds, ...others] = JSON.parse(stdout)
  assert.equal(
    message,
    `DaemonUnavailable: no daemon at ipc://${base}/.stored/stored.sock: there is no socket; ` +
      `a daemon is started with: perstack-stored serve --base-path ${base}`,
  )
  assert.deepEqual([code, stderr, others], [0, "", []])
  assert.ok(milliseconds < SOON_MS, `${milliseconds} ms`)
})

test("where a daemon has served before, it has a second to come back, and then calls fail at once", async (context) => {
  const base = join(temporaryFolder(context), "perstack")
  mkdirSync(join(base, ".stored"), { recursive: true })
  const storage = createStorage({ basePath: base })
  let started = performance.now()
  await assert.rejects(storage.storeEvent(event("j", 0)), DaemonUnavailable)
  const first = performance.now() - started
  assert.ok(first > 900 && first < SOON_MS, `${first} ms`)
  started = performance.now()
  await assert.rejects(storage.getAllJobs(), DaemonUnavailable)
  assert.ok(performance.now() - started < 500)
  await storage.close()
})

test("a socket that comes within the second is used, and calls keep their order", async (context) => {
  const daemon = await Daemon.on(context)
  const socket = join(daemon.base, ".stored/stored.sock")
  renameSync(socket, `${socket}-away`)
  const storage = createStorage({ basePath: daemon.base })
  const stores = range(300).map((n) => storage.storeEvent(event("j", n)))
  await sleep(200)
  renameSync(`${socket}-away`, socket)
  await Promise.all(stores)
  assert.deepEqual(await numbersOf(storage, "j"), range(300))
  await storage.close()
})

test("a client that has met its daemon waits for it, though a clean stop takes the socket away", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ basePath: daemon.base })
  await storage.storeEvent(event("j", 0))
  daemon.process.kill("SIGTERM")
  await daemon.ended
  const stored = storage.storeEvent(event("j", 1))
  await sleep(2000)
  await daemon.start()
  await stored
  assert.deepEqual(await numbersOf(storage, "j"), [0, 1])
  await storage.close()
})

/** What upstream's runtime makes of failed stores: their own words are gone. */
const SWALLOWED = `
  import * as storage from "perstack-storage-client"
  const stored = storage.defaultStoreEvent(${JSON.stringify(event("j", 0))})
  const [{ reason }] = await Promise.allSettled([stored])
  console.error(new AggregateError([reason], "One or more event listeners failed").message)
  process.exit(1)`

test("a person at a terminal is told by one line, also where the error is swallowed", async (context) => {
  const base = join(temporaryFolder(context), "perstack")
  const told = await program(SWALLOWED, { base, terminal: true })
  const line =
    `perstack-storage-client: no daemon at ipc://${base}/.stored/stored.sock; ` +
    `start one: perstack-stored serve --base-path ${base}`
  assert.deepEqual(told.stdout.split(/\r?\n/), [line, "One or more event listeners failed", ""])
  const quiet = await program(SWALLOWED, { base })
  assert.deepEqual([quiet.stdout, quiet.stderr], ["", "One or more event listeners failed\n"])
})

test("a wait of more than a second is told at a terminal, also from a synchronous call", async (context) => {
  const base = join(temporaryFolder(context), "perstack")
  mkdirSync(join(base, ".stored"), { recursive: true })
  const daemon = new Daemon(base)
  context.after(() => daemon.kill())
  await daemon.start()
  await daemon.kill() // its socket stays
  const going = program(
    `import * as storage from "perstack-storage-client"
    storage.storeJob(storage.createInitialJob("j", "k"))
    console.log("" + storage.getAllJobs().length)`,
    { base, terminal: true },
  )
  await sleep(3000)
  await daemon.start()
  const { stdout } = await going
  const line =
    `perstack-storage-client: waiting for a daemon at ipc://${base}/.stored/stored.sock; ` +
    `start one: perstack-stored serve --base-path ${base}`
  assert.deepEqual(stdout.split(/\r?\n/), [line, "1", ""])
})
