// The module-level functions, each in a program of its own: they share one client, found by the directory.

import assert from "node:assert/strict"
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import * as client from "perstack-storage-client"
import { Daemon, filesOf, golden, ROOT, run, Shared, temporaryFolder } from "./support.mjs"

const PACKAGE = join(ROOT, "client/typescript")

/** Runs a program in a folder where the package stands under a name; its last line is JSON. */
async function program(folder, text, { name = "perstack-storage-client", env = {} } = {}) {
  const link = join(folder, "node_modules", name)
  if (!existsSync(link)) {
    mkdirSync(join(link, ".."), { recursive: true })
    symlinkSync(PACKAGE, link)
  }
  writeFileSync(join(folder, "package.json"), '{"type":"module"}')
  const file = join(folder, `program-${Math.random()}.mjs`)
  writeFileSync(file, text)
  const done = await run([file], { cwd: folder, env })
  assert.deepEqual([done.code, done.stderr], [0, ""], done.stdout + done.stderr)
  return JSON.parse(done.stdout.trimEnd().split("\n").at(-1) || "null")
}

const USES = 'import * as storage from "perstack-storage-client"\n'

describe("on a daemon of its folder", () => {
  const shared = new Shared()
  let folder, daemon
  before(async () => {
    folder = temporaryFolder(shared)
    shared.after(() => daemon?.kill())
    daemon = await new Daemon(join(folder, "perstack")).start()
  })
  after(() => shared.end())

  test("the reference's calls give the reference's answers", async () => {
    const { calls, reads } = golden()
    writeFileSync(join(folder, "golden.json"), JSON.stringify({ calls, reads }))
    const answers = await program(
      folder,
      `${USES}
      import { readFileSync } from "node:fs"
      const names = { storeCheckpoint: "defaultStoreCheckpoint", storeEvent: "defaultStoreEvent",
        retrieveCheckpoint: "defaultRetrieveCheckpoint" }
      const { calls, reads } = JSON.parse(readFileSync("golden.json"))
      for (const { op, value } of calls) await storage[names[op] ?? op](value)
      const answers = []
      for (const { op, args } of reads) {
        try { answers.push({ ok: (await storage[names[op] ?? op](...args)) ?? null }) }
        catch (error) { answers.push({ error: error.message }) }
      }
      console.log(JSON.stringify(answers))`,
    )
    assert.deepEqual(answers, reads.map(({ ok, error }) => (error ? { error } : { ok })))
    const storage = client.createStorage({ endpoint: daemon.endpoint })
    while ((await storage.stats()).tree.lagRecords !== 0) await new Promise((resolve) => setTimeout(resolve, 10))
    const files = Object.entries(filesOf(daemon.base)).map(([name, text]) => [`perstack/${name}`, text])
    assert.deepEqual(Object.fromEntries(files), golden().tree)
    await storage.close()
  })

  test("a program with the alias runs the documented usage word for word", async () => {
    const own = temporaryFolder(shared)
    const text = readFileSync(join(ROOT, "client/typescript/test/usage.mjs"), "utf8")
    const other = await new Daemon(join(own, "perstack")).start()
    try {
      const seen = await program(own, `${text}\nconsole.log(JSON.stringify({ job, retrieved, jobs }))`, {
        name: "@perstack/storage",
      })
      assert.equal(seen.job.maxSteps, 50)
      assert.deepEqual(seen.retrieved, seen.job)
      assert.deepEqual(seen.jobs, [seen.job])
    } finally {
      await other.kill()
    }
  })

  test("each is synchronous or asynchronous as it is in the reference", async () => {
    const kinds = await program(
      folder,
      `${USES}
      const event = { id: "k", type: "t", expertKey: "k", timestamp: 1, stepNumber: 0, jobId: "kinds", runId: "r" }
      const usage = { inputTokens: 1, outputTokens: 1, reasoningTokens: 0, totalTokens: 2, cachedInputTokens: 0 }
      const checkpoint = { id: "c", jobId: "kinds", runId: "r", status: "s", stepNumber: 1, messages: [], usage,
        expert: { key: "k", name: "k", version: "1" } }
      const setting = { jobId: "kinds", runId: "r", model: "m", expertKey: "k", perstackApiBaseUrl: "u",
        providerConfig: {}, input: {}, experts: {}, env: {}, maxRetries: 1, timeout: 1, startedAt: 1, updatedAt: 1 }
      const job = storage.createInitialJob("kinds", "k")
      const calls = {
        storeJob: [job], retrieveJob: ["kinds"], getAllJobs: [], getJobDir: ["kinds"], getJobsDir: [],
        defaultStoreCheckpoint: [checkpoint], getCheckpointsByJobId: ["kinds"], getCheckpointDir: ["kinds"],
        getCheckpointPath: ["kinds", "c"], defaultStoreEvent: [event], getEventsByRun: ["kinds", "r"],
        getEventContents: ["kinds", "r", 1], storeRunSetting: [setting], getAllRuns: [],
        defaultGetRunDir: ["kinds", "r"], createDefaultFileSystem: [],
      }
      const kinds = {}
      for (const [name, args] of Object.entries(calls)) {
        const answer = storage[name](...args)
        kinds[name] = answer instanceof Promise
        await answer
      }
      const retrieved = storage.defaultRetrieveCheckpoint("kinds", "c")
      kinds.defaultRetrieveCheckpoint = retrieved instanceof Promise
      await retrieved
      console.log(JSON.stringify(kinds))`,
    )
    const asynchronous = new Set([
      "defaultStoreCheckpoint", "defaultRetrieveCheckpoint", "defaultStoreEvent", "storeRunSetting",
      "createDefaultFileSystem",
    ])
    assert.equal(Object.keys(kinds).length, 17)
    for (const [name, kind] of Object.entries(kinds)) assert.equal(kind, asynchronous.has(name), name)
  })

  test("calls of both kinds keep their order, and what was not awaited is stored before the process ends", async () => {
    await program(
      folder,
      `${USES}
      const event = (n) => ({ id: "e" + n, type: "t", expertKey: "k", timestamp: 1, stepNumber: 0, jobId: "order", runId: "r", n })
      for (let n = 0; n < 300; n++) {
        const value = event(n)
        storage.defaultStoreEvent(value)
        value.n = "changed after the call"
        if (n % 50 === 0) storage.storeJob({ ...storage.createInitialJob("order", "k"), totalSteps: n })
      }
      console.log("null")`,
    )
    const storage = client.createStorage({ endpoint: daemon.endpoint })
    const events = await storage.getEventContents("order", "r")
    assert.deepEqual(events.map(({ n }) => n), Array.from({ length: 300 }, (_, n) => n))
    assert.equal((await storage.retrieveJob("order")).totalSteps, 250)
    const order = (await storage.readAll({ limit: 10_000 })).items.filter(({ value }) => (value.jobId ?? value.id) === "order")
    const jobs = order.flatMap(({ op, value }, i) => (op === "storeJob" ? [[value.totalSteps, i]] : []))
    assert.deepEqual(jobs.map(([steps, i]) => i - jobs.findIndex(([other]) => other === steps)), [1, 51, 101, 151, 201, 251])
    await storage.close()
  })

  test("an end by process.exit or an exception keeps what was not awaited, and is no abort", async () => {
    const ends = { exit: ["process.exit(7)", 7], throw: ["throw new Error('the end')", 1] }
    for (const [id, [text, expected]] of Object.entries(ends)) {
      const file = join(folder, `ends-${id}.mjs`)
      writeFileSync(
        file,
        `${USES}
        const event = (n) => ({ id: "e" + n, type: "t", expertKey: "k", timestamp: n, stepNumber: 0, jobId: "${id}", runId: "r", n })
        for (let n = 0; n < 500; n++) storage.defaultStoreEvent(event(n)).catch(() => {})
        ${text}`,
      )
      const done = await run([file], { cwd: folder })
      assert.equal(done.code, expected, done.stderr)
      const storage = client.createStorage({ endpoint: daemon.endpoint })
      assert.equal((await storage.getEventsByRun(id, "r")).length, 500)
      await storage.close()
    }
  })

  test("without a daemon an end by process.exit is put off for seconds only", async () => {
    const lonely = temporaryFolder(shared)
    const file = join(folder, "lonely.mjs")
    writeFileSync(
      file,
      `${USES}
      storage.defaultStoreEvent({ id: "e", type: "t", expertKey: "k", timestamp: 1, stepNumber: 0, jobId: "j", runId: "r" })
      process.exit(7)`,
    )
    const started = performance.now()
    const done = await run([file], { cwd: lonely, env: { PERSTACK_STORED_BASE: join(lonely, "perstack") } })
    assert.equal(done.code, 7, done.stderr)
    assert.ok(performance.now() - started < 25_000)
  })

  test("synchronous stores ride out a kill of the daemon", async () => {
    const own = temporaryFolder(shared)
    const other = await new Daemon(join(own, "perstack")).start()
    try {
      const going = program(
        own,
        `${USES}
        import { existsSync, writeFileSync } from "node:fs"
        for (let n = 0; n < 200 || !existsSync("restarted"); n++) {
          storage.storeJob({ ...storage.createInitialJob("j", "k"), totalSteps: n })
          if (n === 20) writeFileSync("going", "")
          globalThis.n = n
        }
        console.log(globalThis.n)`,
      )
      const deadline = performance.now() + 60_000
      while (!existsSync(join(own, "going"))) {
        assert.ok(performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      await other.kill()
      await other.start()
      writeFileSync(join(own, "restarted"), "")
      const last = await going
      const storage = client.createStorage({ endpoint: other.endpoint })
      assert.equal((await storage.retrieveJob("j")).totalSteps, last)
      assert.equal((await storage.readAll({ limit: 1 })).position, last + 1)
      await storage.close()
    } finally {
      await other.kill()
    }
  })

  test("errors have their classes, codes and words in both kinds", async () => {
    const seen = await program(
      folder,
      `${USES}
      const told = (error) => [error.constructor.name, error instanceof storage.StorageError, error.code, error.field, error.message]
      const seen = []
      try { storage.storeJob(storage.createInitialJob("a/b", "k")) } catch (error) { seen.push(told(error)) }
      try { storage.storeJob({ n: 1n }) } catch (error) { seen.push(told(error).slice(0, 2)) }
      try { storage.getJobDir("..") } catch (error) { seen.push(told(error).slice(0, 2)) }
      await storage.defaultStoreEvent({ id: 5 }).catch((error) => seen.push(told(error).slice(0, 3)))
      await storage.defaultRetrieveCheckpoint("no", "such").catch((error) => seen.push(told(error)))
      await storage.closeSharedClient()
      seen.push(storage.getAllJobs() instanceof Array)
      console.log(JSON.stringify(seen))`,
    )
    assert.deepEqual(seen[0].slice(0, 4), ["Refused", true, "BAD_VALUE", "id"])
    assert.match(seen[0][4], /^storeJob refused: id must/)
    assert.deepEqual(seen[1], ["InvalidArgument", true])
    assert.deepEqual(seen[2], ["InvalidArgument", true])
    assert.deepEqual(seen[3], ["Refused", true, "BAD_VALUE"])
    assert.deepEqual(seen[4], ["CheckpointNotFound", true, "NOT_FOUND", null, "checkpoint not found: such"])
    assert.equal(seen[5], true)
  })

  test("an unhandled rejection names the line of the program, of the class and of the functions", async () => {
    for (const call of ["storage.defaultStoreEvent({ id: 5 })", "new storage.FileSystemStorage().storeEvent({ id: 5 })"]) {
      const file = join(folder, `unhandled-${Math.random()}.mjs`)
      writeFileSync(file, `${USES}\nfunction theCaller() {\n  void ${call}\n}\ntheCaller()`)
      const done = await run([file], { cwd: folder })
      assert.equal(done.code, 1)
      assert.match(done.stderr, /Refused: storeEvent refused: /)
      assert.match(done.stderr, /at theCaller \(.*unhandled-.*:4:\d+\)/)
    }
  })

  test("a synchronous read sees what was stored before it without waiting", async () => {
    const counts = await program(
      folder,
      `${USES}
      const event = (n) => ({ id: "e" + n, type: "t", expertKey: "k", timestamp: n, stepNumber: 0, jobId: "own", runId: "r", n })
      const counts = []
      for (let n = 0; n < 300; n++) {
        storage.defaultStoreEvent(event(n))
        if (n % 100 === 99) counts.push(storage.getEventsByRun("own", "r").length)
      }
      console.log(JSON.stringify(counts))`,
    )
    assert.deepEqual(counts, [100, 200, 300])
  })

  test("a setting goes elsewhere through a file system or a folder of the caller's", async () => {
    const elsewhere = temporaryFolder(shared)
    const count = await program(
      folder,
      `${USES}
      import { join } from "node:path"
      const setting = { jobId: "elsewhere", runId: "r", apiKey: "k", updatedAt: 1 }
      const getRunDir = (job, run) => join(${JSON.stringify(elsewhere)}, job, run)
      await storage.storeRunSetting(setting, undefined, getRunDir)
      await storage.storeRunSetting({ ...setting, apiKey: "other" }, await storage.createDefaultFileSystem(), getRunDir)
      console.log(storage.getAllRuns().filter(({ jobId }) => jobId === "elsewhere").length)`,
    )
    assert.equal(count, 0)
    const path = join(elsewhere, "elsewhere/r/run-setting.json")
    const found = JSON.parse(readFileSync(path, "utf8"))
    assert.equal(found.apiKey, "k")
    assert.ok(found.updatedAt > 1)
    assert.equal(statSync(path).mode & 0o777, 0o640)
  })

  test("a file system of the caller's is asked for the folder of the run, as the reference asks it", async () => {
    const seen = await program(
      folder,
      `${USES}
      const setting = { jobId: "j", runId: "r", maxRetries: 3, updatedAt: 1 }
      const seen = {}
      for (const [name, there, holds] of [["nothing", [], ""], ["a setting", ["/runs/r", "/runs/r/run-setting.json"],
          '{"maxRetries":10,"updatedAt":1}'], ["events only", ["/runs/r"], ""]]) {
        const calls = []
        const fs = {
          existsSync: (path) => (calls.push(["existsSync", path]), there.includes(path)),
          mkdir: async (...args) => void calls.push(["mkdir", ...args]),
          readFile: async (...args) => (calls.push(["readFile", ...args]), holds),
          writeFile: async (...args) => void calls.push(["writeFile", ...args]),
        }
        await storage.storeRunSetting(setting, fs, () => "/runs/r")
        seen[name] = calls
      }
      console.log(JSON.stringify(seen))`,
    )
    const path = "/runs/r/run-setting.json"
    const written = [
      ["mkdir", "/runs/r", { recursive: true }],
      ["writeFile", path, '{"jobId":"j","runId":"r","maxRetries":3,"updatedAt":1}', "utf-8"],
    ]
    assert.deepEqual(seen["nothing"], [["existsSync", "/runs/r"], ...written])
    assert.deepEqual(seen["events only"], [["existsSync", "/runs/r"], ["existsSync", path], ...written])
    const [first, , read, write] = seen["a setting"]
    assert.deepEqual([first, read], [["existsSync", "/runs/r"], ["readFile", path, "utf-8"]])
    const kept = JSON.parse(write[2])
    assert.deepEqual([write[1], write[3], kept.maxRetries], [path, "utf-8", 10])
    assert.ok(kept.updatedAt > 1_700_000_000_000)
  })

  test("the base is that of PERSTACK_STORED_BASE, else of PERSTACK_STORAGE_PATH, and paths need no thread", async () => {
    const seen = await program(
      folder,
      `${USES}
      import { readdirSync } from "node:fs"
      const threads = () => readdirSync("/proc/self/task").length
      const before = threads()
      const { endpoint } = new storage.FileSystemStorage()
      console.log(JSON.stringify([storage.getJobsDir(), endpoint, threads() - before]))`,
      { env: { PERSTACK_STORAGE_PATH: join(folder, "other") } },
    )
    assert.deepEqual(seen, [join(folder, "other/jobs"), `ipc://${folder}/other/.stored/stored.sock`, 0])
    const first = await program(folder, `${USES}console.log(JSON.stringify(storage.getJobsDir()))`, {
      env: { PERSTACK_STORAGE_PATH: "/nowhere", PERSTACK_STORED_BASE: daemon.base },
    })
    assert.equal(first, join(daemon.base, "jobs"))
  })

  test("paths are those of the base, whatever the directory is later", async () => {
    const paths = await program(
      folder,
      `${USES}
      const first = storage.getJobsDir()
      process.chdir("/")
      console.log(JSON.stringify([first, storage.getJobsDir(), storage.getCheckpointDir("j"),
        storage.getCheckpointPath("j", "c"), storage.defaultGetRunDir("j", "r")]))`,
    )
    const jobs = join(daemon.base, "jobs")
    assert.deepEqual(paths, [jobs, jobs, `${jobs}/j/checkpoints`, `${jobs}/j/checkpoints/c.json`, `${jobs}/j/runs/r`])
    const named = await program(folder, `${USES}console.log(JSON.stringify(storage.getJobsDir()))`, {
      env: { PERSTACK_STORED_ENDPOINT: daemon.endpoint, PERSTACK_STORED_BASE: "/nowhere" },
    })
    assert.equal(named, jobs)
  })
})
