// A daemon that answers nonsense without end, values of odd shapes, handlers of the program that throw: each ends in an
// error of the client, for the call that it concerns.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { test } from "node:test"
import { fileURLToPath } from "node:url"

import { createStorage, InvalidArgument, ProtocolError, StorageError } from "perstack-storage-client"
import { Router } from "zeromq"
import { ANSWER_BYTES_MAX, Read } from "../dist/core/reads.js"
import { Daemon, event, eventually, job, numbersOf, range, temporaryFolder } from "./support.mjs"

const PACKAGE = fileURLToPath(new URL("..", import.meta.url))
const HELLO = {
  window: { records: 1024, bytes: 16_777_216 },
  limits: { frameBytes: 16_777_216, batchItems: 1024, valueBytes: 1_048_576 },
  store: "s",
}

/** A daemon that answers as a test says: `answer(header)` returns the header's fields, or their text, and the body. */
async function fakeDaemon(context, answer) {
  const socket = new Router({ linger: 0 })
  const endpoint = `ipc://${join(temporaryFolder(context), "d.sock")}`
  await socket.bind(endpoint)
  context.after(() => socket.close())
  const serve = async () => {
    for await (const [client, frame] of socket) {
      const header = JSON.parse(frame.toString().split("\n")[0])
      const [fields, body] = answer(header) ?? [{}, header.op === "hello" ? JSON.stringify(HELLO) : "{}"]
      const rest = typeof fields === "string" ? fields : JSON.stringify({ ok: true, ...fields }).slice(1, -1)
      await socket.send([client, `{"v":1,"id":${header.id},${rest}}\n${body}`])
    }
  }
  serve().catch(() => {})
  return endpoint
}

test("an answer that never ends is broken off at what a value may have, and harms no other call", async (context) => {
  const piece = "x".repeat(262_144)
  let pieces = 0
  const endpoint = await fakeDaemon(context, ({ op }) => {
    if (op !== "retrieveJob" && op !== "readPart") return undefined
    pieces += 1
    return [{ more: { read: "k", part: pieces } }, piece]
  })
  const storage = createStorage({ endpoint, timeoutMs: 30_000 })
  const ping = storage.ping()
  await assert.rejects(storage.retrieveJob("j"), (error) => error instanceof ProtocolError && /1048576 bytes/.test(error.message))
  assert.ok(pieces <= 6, `${pieces}`)
  await ping
  await storage.ping()
  await storage.close()
})

test("a listing that never ends is broken off at a stated size", () => {
  const read = new Read("getAllJobs", "{}", Infinity)
  const body = Buffer.alloc(16_777_216) // the same bytes each time
  let pieces = 0
  for (; !read.done && pieces < 1000; pieces += 1) {
    read.sent(pieces, 0)
    read.answered({ header: { id: pieces, ok: true, more: { read: "k", part: pieces } }, body }, 0, 1)
  }
  assert.equal(pieces, ANSWER_BYTES_MAX / body.length + 1)
  assert.ok(read.failure instanceof ProtocolError)
  assert.match(read.failure.message, /page\(\)/)
})

const NONSENSE = {
  "a position below zero": [{ position: -1 }, ""],
  "a position that is no integer": [{ position: 1.5 }, ""],
  "a position beyond what is exact": [{ position: 1e300 }, ""],
  "positions that are none": [{ results: [-7] }, ""],
  "more results than stores": [{ results: range(1000) }, ""],
  "a header that is nested very deeply": [`"ok":true,"results":[1,${"[".repeat(20_000)}${"]".repeat(20_000)}]`, ""],
}
for (const [name, answered] of Object.entries(NONSENSE)) {
  test(`a store that is answered with ${name} fails with the client's own error`, async (context) => {
    const endpoint = await fakeDaemon(context, ({ op }) => (op === "storeEvent" ? answered : undefined))
    const storage = createStorage({ endpoint, timeoutMs: 20_000 })
    await assert.rejects(storage.storeEvent(event("j", 1)), ProtocolError)
    await storage.ping()
    await storage.close()
  })
}

test("a daemon that grants frames of a few bytes is not believed", async (context) => {
  const hello = { ...HELLO, limits: { ...HELLO.limits, frameBytes: 513 } }
  const endpoint = await fakeDaemon(context, ({ op }) => (op === "hello" ? [{}, JSON.stringify(hello)] : undefined))
  const storage = createStorage({ endpoint, timeoutMs: 20_000 })
  await assert.rejects(storage.storeEvent(event("j", 1)), /frameBytes is 513/)
  await storage.close()
})

test("a follower that is sent back, or to nowhere, fails instead of repeating records", async (context) => {
  for (const next of [1, -1, "x", null, undefined, 2 ** 60]) {
    const endpoint = await fakeDaemon(context, ({ op }) => (op === "readAll" ? [{ next, position: 9 }, "[]"] : undefined))
    const storage = createStorage({ endpoint, timeoutMs: 20_000 })
    await assert.rejects(storage.follow({ after: 5 }).next(), ProtocolError)
    await storage.close()
  }
})

test("a value nested too deeply is the client's own error, and one that is not comes back", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ basePath: daemon.base })
  const nested = (depth) => JSON.parse(`${"[".repeat(depth)}${"]".repeat(depth)}`)
  for (const depth of [5_000, 100_000, 1_000_000]) {
    await assert.rejects(storage.storeJob(job("j", { nested: nested(depth) })), StorageError)
  }
  const circle = {}
  circle.circle = circle
  const odd = [circle, { toJSON: () => { throw Object.create(null) } }, { get field() { throw new RangeError("mine") } }]
  for (const value of odd) await assert.rejects(storage.storeJob(value), InvalidArgument)
  await storage.storeJob(job("j", { nested: nested(400) }))
  assert.deepEqual((await storage.retrieveJob("j")).nested, nested(400))
  await storage.close()
})

test("an onError that rejects or throws is a warning; it may store, and what it stores is kept", async (context) => {
  const daemon = await Daemon.on(context)
  const warnings = []
  const note = (warning) => warnings.push(warning.message)
  process.on("warning", note)
  context.after(() => process.off("warning", note))
  const storage = createStorage({
    basePath: daemon.base,
    onError: async () => {
      void storage.storeEvent(event("j", warnings.length + 10))
      throw new Error("mine")
    },
  })
  await storage.storeEvent(event("j", 0, { stepNumber: -1 }))
  await eventually(() => warnings.some((message) => /onError .* mine/.test(message)), "it warns")
  await storage.storeEvent(event("j", 1))
  assert.deepEqual((await numbersOf(storage, "j")).sort(), [1, 10])
  await storage.close()
})

test("a store that a getter of another store calls is kept, and both have their places", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ basePath: daemon.base })
  const inner = []
  const outer = storage.store("storeEvent", { ...event("j", 2), toJSON() {
    inner.push(storage.store("storeEvent", event("j", 1)))
    return event("j", 2)
  } })
  assert.deepEqual([await inner[0], await outer], [1, 2])
  await storage.close()
})

test("the last event of a SIGTERM handler is kept, stored by the class or by a function", async (context) => {
  const daemon = await Daemon.on(context)
  const ends = {
    class: "void storage.storeEvent(event('last')); void storage.close(); clearInterval(going)",
    function: "void defaultStoreEvent(event('last')); process.exit(0)",
  }
  for (const [kind, end] of Object.entries(ends)) {
    const program = `
      import { createStorage, defaultStoreEvent } from "perstack-storage-client"
      const storage = createStorage({ timeoutMs: 20_000, onError() {} })
      const event = (n) => ({ ...${JSON.stringify(event("j", 0))}, jobId: "${kind}", id: "e" + n, n })
      process.on("SIGTERM", () => { ${end} })
      await storage.ping()
      let n = 0
      const going = setInterval(() => { for (let i = 0; i < 20; i++) void storage.storeEvent(event(n++)) }, 1)
      console.log("going")`
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      cwd: PACKAGE,
      env: { ...process.env, PERSTACK_STORED_BASE: daemon.base },
    })
    context.after(() => child.kill("SIGKILL"))
    const said = { stdout: "", stderr: "" }
    for (const name of ["stdout", "stderr"]) child[name].setEncoding("utf8").on("data", (text) => (said[name] += text))
    const ended = new Promise((resolve) => child.once("close", resolve))
    await eventually(() => said.stdout.includes("going"), "it runs")
    child.kill("SIGTERM")
    assert.equal(await ended, 0, said.stderr)
    const storage = createStorage({ basePath: daemon.base })
    const stored = await numbersOf(storage, kind)
    assert.ok(stored.includes("last"), `${kind}: ${stored.at(-1)}`)
    await storage.close()
  }
})
