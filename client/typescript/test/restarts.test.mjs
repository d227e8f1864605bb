// The daemon goes away, comes back, or never was: nothing is lost or doubled, and waits end in time.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { test } from "node:test"
import { fileURLToPath } from "node:url"

import { createStorage, DaemonUnavailable, OutcomeUnknown, StorageError, TooMuchOutstanding } from "perstack-storage-client"
import {
  capturedRun,
  Daemon,
  event,
  eventually,
  job,
  numbersOf,
  range,
  run,
  setting,
  temporaryFolder,
  underOtherJob,
} from "./support.mjs"

const REPLAY = fileURLToPath(new URL("./replay.mjs", import.meta.url))

test("captured runs b and c, un-awaited, over two kills, are stored completely and in order", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ endpoint: daemon.endpoint, timeoutMs: 60_000 })
  const agent = spawn(process.execPath, [REPLAY, daemon.endpoint, "b", "c"], { stdio: ["pipe", "pipe", "pipe"] })
  let said = ""
  for (const stream of [agent.stdout, agent.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text))
  const ended = new Promise((resolve) => agent.once("close", resolve))
  for (const marks of ["mark\n", "mark\nmark\n"]) {
    await eventually(() => said.length >= marks.length, "the agent is in the middle of a run", 60_000)
    assert.equal(said, marks)
    await daemon.kill()
    agent.stdin.write("on\n")
    await daemon.start()
  }
  assert.equal(await ended, 0, said)
  assert.equal(said, "mark\nmark\n")
  const expected = ["b", "c"].flatMap((name) =>
    capturedRun(name).map(({ op, value }) => ({ op, value: underOtherJob(value, `replay-${name}`) })),
  )
  const found = []
  for await (const { op, value } of storage.follow({ idleMs: 0 })) found.push({ op, value })
  assert.equal(found.length, expected.length)
  assert.deepEqual(found, expected)
  await storage.close()
})

test("stores one after the other, a large one, and a read ride out a kill", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ endpoint: daemon.endpoint, timeoutMs: 60_000 })
  const positions = []
  const storing = (async () => {
    for (const n of range(300)) positions.push(await storage.store("storeEvent", event("j", n)))
  })()
  await eventually(() => positions.length >= 100, "some are stored")
  await daemon.kill()
  await daemon.start()
  await storing
  assert.deepEqual(positions, range(301, 1))
  const large = storage.store("storeEvent", event("j", 300, { text: "x".repeat(41_943_040) }))
  const behind = storage.store("storeEvent", event("j", 301))
  await daemon.kill()
  const read = numbersOf(storage, "j")
  await daemon.start()
  assert.deepEqual([await large, await behind], [301, 302])
  assert.deepEqual((await read).slice(0, 300), range(300))
  assert.deepEqual(await numbersOf(storage, "j"), range(302))
  await storage.close()
})

test("with a daemon that never was, calls end in time and say what to do", async (context) => {
  const folder = temporaryFolder(context)
  const storage = createStorage({ endpoint: `ipc://${folder}/nobody.sock`, timeoutMs: 300 })
  const start = performance.now()
  for (const call of [storage.storeEvent(event("j", 1)), storage.retrieveJob("j"), storage.ping()]) {
    const failed = await call.catch((error) => error)
    assert.ok(failed instanceof DaemonUnavailable && failed instanceof StorageError)
    assert.ok(failed.message.includes(storage.endpoint), failed.message)
    assert.ok(failed.message.includes(`perstack-stored serve --bind ${storage.endpoint}`), failed.message)
  }
  assert.ok(performance.now() - start >= 300)
  await storage.close()
})

test("what was given up is told, and the session goes on without it", async (context) => {
  const daemon = await Daemon.on(context)
  const errors = []
  const storage = createStorage({ basePath: daemon.base, timeoutMs: 2000, onError: (error) => errors.push(error) })
  await storage.storeEvent(event("j", 0))
  await daemon.kill()
  const stores = range(300, 1).map((n) => storage.storeEvent(event("j", n)))
  await Promise.all(stores)
  assert.equal(errors.length, 299)
  assert.ok(errors.every((error) => error instanceof DaemonUnavailable || error instanceof OutcomeUnknown))
  await daemon.start()
  await eventually(async () => (await storage.ping().catch(() => 0)) > 0, "it answers")
  await storage.storeEvent(event("j", 300))
  assert.deepEqual(await numbersOf(storage, "j"), [0, 300])
  await storage.close()
})

test("a stopped daemon leaves the outcome unknown, and a store given up never comes late", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ basePath: daemon.base, timeoutMs: 1500 })
  await storage.storeEvent(event("j", 0))
  daemon.process.kill("SIGSTOP")
  await assert.rejects(storage.storeEvent(event("j", 1)), OutcomeUnknown)
  daemon.process.kill("SIGCONT")
  await eventually(async () => (await storage.ping().catch(() => 0)) > 0, "it answers")
  await storage.storeEvent(event("j", 2))
  const stored = await numbersOf(storage, "j")
  assert.ok([[0, 2], [0, 1, 2]].some((possible) => `${possible}` === `${stored}`), `${stored}`)
  await storage.close()
})

test("beyond the bounds a store fails at once, and goes to onError where there is one", async (context) => {
  const base = join(temporaryFolder(context), "nobody")
  const errors = []
  const storage = createStorage({
    basePath: base,
    timeoutMs: 500,
    maxOutstanding: 100,
    onError: (error) => {
      errors.push(error)
      if (errors.length === 1) throw new Error("mine")
    },
  })
  const warned = new Promise((resolve) => process.once("warning", resolve))
  for (const n of range(101)) void storage.storeEvent(event("j", n))
  await assert.rejects(storage.storeJob(job("j")), TooMuchOutstanding)
  void storage.storeEvent(event("j", 1, { bad: 1n }))
  await storage.close()
  assert.deepEqual(
    errors.map((error) => error.name).sort(),
    ["InvalidArgument", "TooMuchOutstanding", ...Array(100).fill("DaemonUnavailable")].sort(),
  )
  assert.match((await warned).message, /onError .* mine/)
  const bytes = createStorage({ basePath: base, timeoutMs: 300, maxOutstandingBytes: 1000 })
  const first = bytes.storeEvent(event("j", 1, { text: "x".repeat(2000) }))
  await assert.rejects(bytes.storeEvent(event("j", 2)), TooMuchOutstanding)
  await assert.rejects(first, DaemonUnavailable)
  await bytes.close()
})

test("errors never tell the secrets of what was stored", async (context) => {
  const base = join(temporaryFolder(context), "nobody")
  const storage = createStorage({ basePath: base, timeoutMs: 200 })
  const failed = await storage.storeRunSetting(setting("j")).catch((error) => error)
  assert.ok(!`${failed.stack}${JSON.stringify(failed)}`.includes("secret"))
  const odd = await storage.storeRunSetting(setting("j", { env: { KEY: 1n } })).catch((error) => error)
  assert.ok(!odd.message.includes("secret"))
  await storage.close()
})

test("a process ends by itself when nothing is outstanding, and not before", async (context) => {
  const daemon = await Daemon.on(context)
  const program = (code) => {
    const text = `
      import { createStorage } from "perstack-storage-client"
      const storage = createStorage({ basePath: ${JSON.stringify(daemon.base)}, timeoutMs: 30_000 })
      const event = (n) => ({ ...${JSON.stringify(event("ends", 0))}, id: "e" + n, n })
      ${code}`
    return run(["--input-type=module", "-e", text], { cwd: fileURLToPath(new URL("..", import.meta.url)) })
  }
  const done = await program("for (let n = 0; n < 2000; n++) void storage.storeEvent(event(n))")
  assert.deepEqual(done, { code: 0, signal: null, stdout: "", stderr: "" })
  const storage = createStorage({ basePath: daemon.base })
  assert.deepEqual((await storage.getEventContents("ends", "r")).map((found) => found.n), range(2000))
  await storage.close()
  const refused = await program("void storage.storeEvent({ ...event(1), stepNumber: -1 })")
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /Refused: storeEvent refused: stepNumber/)
})
