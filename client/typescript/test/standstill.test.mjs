// The caller's own standstill is no silence of the daemon: nothing is reported lost that was kept, or could be sent.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { test } from "node:test"
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"

import { createStorage, DaemonUnavailable } from "perstack-storage-client"
import { Daemon, event, eventually, numbersOf, range, temporaryFolder } from "./support.mjs"

const PACKAGE = fileURLToPath(new URL("..", import.meta.url))
const FAKE = fileURLToPath(new URL("./fake.mjs", import.meta.url))
const TIMEOUT_MS = 2000
const STANDSTILL_MS = 2500

/** Keeps the event loop from turning, as a computation or `execSync` does. */
function standStill(milliseconds = STANDSTILL_MS) {
  const until = performance.now() + milliseconds
  while (performance.now() < until);
}

/** A daemon that answers at once, however busy the machine is, or reads of a job slowly; returns its endpoint. */
async function quickDaemon(context, readMs = 0) {
  const endpoint = `ipc://${join(temporaryFolder(context), "d.sock")}`
  const child = spawn(process.execPath, [FAKE, endpoint, readMs], { stdio: ["ignore", "pipe", "inherit"] })
  context.after(() => child.kill("SIGKILL"))
  await new Promise((resolve) => child.stdout.once("data", resolve))
  return endpoint
}

test("a standstill beyond the timeout fails no call, wherever each was at its beginning", async (context) => {
  const endpoint = await quickDaemon(context)
  const stages = range(12)
  const storages = stages.map(() => createStorage({ endpoint, timeoutMs: TIMEOUT_MS }))
  await Promise.all(storages.slice(0, 6).map((storage) => storage.ping())) // the others have no connection yet
  const calls = []
  for (const stage of stages) {
    for (const storage of [storages[stage], storages.at(-1 - stage)]) {
      const [job, n] = [`j${storages.indexOf(storage)}`, calls.length]
      calls.push(storage.storeEvent(event(job, n)), storage.getEventsByRun(job, "r"), storage.ping())
    }
    await turn()
  }
  standStill()
  const failed = (await Promise.allSettled(calls)).filter(({ status }) => status === "rejected")
  assert.deepEqual(failed.map(({ reason }) => String(reason)), [])
  await Promise.all(storages.map((storage) => storage.close()))
})

test("many standstills within one time limit fail no call", async (context) => {
  const storage = createStorage({ endpoint: await quickDaemon(context), timeoutMs: TIMEOUT_MS })
  const stores = []
  for (const n of range(6)) {
    stores.push(storage.storeEvent(event("j", n)))
    standStill(TIMEOUT_MS / 4)
    if (n % 2 === 0) await turn()
  }
  await Promise.all(stores)
  await storage.close()
})

test("where nobody answers, a loop that often stands still gives up all the same", async () => {
  const storage = createStorage({ endpoint: "ipc:///nowhere/d.sock", timeoutMs: 300 })
  let outcome
  const call = storage.storeEvent(event("j", 0)).catch((error) => (outcome = error))
  await eventually(() => {
    standStill(100) // beyond two ticks of the client's clock, each time
    return outcome !== undefined
  }, "it gives up")
  assert.ok((await call) instanceof DaemonUnavailable)
  await storage.close()
})

test("a follower's idle time is the daemon's, not its own standstill", async (context) => {
  const daemon = await Daemon.on(context)
  const [storage, other] = range(2).map(() => createStorage({ basePath: daemon.base }))
  await other.storeEvent(event("j", 0))
  const seen = []
  const following = (async () => {
    for await (const { value } of storage.follow({ idleMs: TIMEOUT_MS })) seen.push(value.n)
  })()
  await eventually(() => seen.length === 1, "it follows")
  await sleep(100) // it waits for the next one
  standStill()
  await other.storeEvent(event("j", 1))
  await following
  assert.deepEqual(seen, [0, 1])
  await Promise.all([storage.close(), other.close()])
})

test("a process that is stopped and goes on fails no call", async (context) => {
  const endpoint = await quickDaemon(context)
  const program = `
    import { createStorage } from "perstack-storage-client"
    const storage = createStorage({ endpoint: ${JSON.stringify(endpoint)}, timeoutMs: ${TIMEOUT_MS} })
    let n = 0, going = true
    const store = async () => {
      while (going) {
        const id = n++
        await storage.storeEvent({ ...${JSON.stringify(event("j", 0))}, id: "e" + id, n: id })
      }
    }
    const read = async () => { while (going) await storage.getEventsByRun("j", "r", 1) }
    process.stdin.once("data", () => (going = false))
    console.log("going")
    await Promise.all([store(), store(), read()])
    await storage.close()
    process.stdin.destroy()`
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { cwd: PACKAGE })
  context.after(() => child.kill("SIGKILL"))
  const said = { stdout: "", stderr: "" }
  for (const name of ["stdout", "stderr"]) child[name].setEncoding("utf8").on("data", (text) => (said[name] += text))
  const ended = new Promise((resolve) => child.once("close", resolve))
  await eventually(() => said.stdout.includes("going"), "it runs")
  child.kill("SIGSTOP")
  await sleep(STANDSTILL_MS)
  child.kill("SIGCONT")
  await sleep(200)
  child.stdin.write("enough\n")
  assert.equal(await ended, 0, said.stderr)
  assert.equal(said.stderr, "")
})

test("a burst of reads that takes longer than the timeout is answered", async (context) => {
  const storage = createStorage({ endpoint: await quickDaemon(context, 10), timeoutMs: TIMEOUT_MS })
  await storage.ping()
  const began = performance.now()
  await Promise.all(range(250).map((n) => storage.retrieveJob(`j${n}`)))
  assert.ok(performance.now() - began > TIMEOUT_MS, "else it shows nothing")
  await storage.close()
})
