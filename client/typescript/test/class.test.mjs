// The class on a real daemon: what is stored comes back, in order, and what can't be stored is refused.

import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { after, before, beforeEach, describe, test } from "node:test"

import {
  CheckpointNotFound,
  ClosedError,
  createStorage,
  DaemonStorage,
  FileSystemStorage,
  InvalidArgument,
  PositionGone,
  Refused,
  StorageError,
} from "perstack-storage-client"
import {
  checkpoint,
  Daemon,
  event,
  filesOf,
  golden,
  job,
  numbersOf,
  range,
  setting,
  Shared,
  treeIsComplete,
} from "./support.mjs"

test("the reference's calls give the reference's files and answers", async (context) => {
  const daemon = await Daemon.on(context)
  const storage = new FileSystemStorage({ basePath: daemon.base })
  assert.ok(storage instanceof DaemonStorage)
  const expected = golden()
  for (const { op, value } of expected.calls) assert.equal(await storage[op](value), undefined)
  for (const { op, args, ok, error } of expected.reads) {
    if (error) await assert.rejects(storage[op](...args), { message: error })
    else assert.deepEqual((await storage[op](...args)) ?? null, ok, `${op}(${args})`)
  }
  await treeIsComplete(storage)
  const files = Object.entries(filesOf(daemon.base)).map(([name, text]) => [`perstack/${name}`, text])
  assert.deepEqual(Object.fromEntries(files), expected.tree)
  await storage.close()
})

describe("on a shared daemon", () => {
  const shared = new Shared()
  let daemon, storage, jobId
  before(async () => {
    daemon = await Daemon.on(shared)
    storage = createStorage({ endpoint: daemon.endpoint, timeoutMs: 60_000 })
    shared.after(() => storage.close())
  })
  after(() => shared.end())
  beforeEach(() => (jobId = `job-${randomUUID()}`))

  test("a job is read as it was stored last, unknown fields included", async () => {
    assert.equal(await storage.retrieveJob(jobId), undefined)
    await storage.storeJob(job(jobId))
    const second = job(jobId, { status: "completed", unknown: { "": "\ud800", deep: [[[]]] } })
    await storage.storeJob(second)
    assert.deepEqual(await storage.retrieveJob(jobId), second)
  })

  test("a key that would change a prototype is a key like any other", async () => {
    const hostile = JSON.parse(`{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}`)
    await storage.storeEvent(event(jobId, 1, { hostile, ...JSON.parse('{"toString":1}') }))
    const [found] = await storage.getEventContents(jobId, "r")
    assert.equal(JSON.stringify(found.hostile), JSON.stringify(hostile))
    assert.equal({}.polluted, undefined)
    assert.equal(Object.getPrototypeOf(found.hostile), Object.prototype)
  })

  test("listings come in pages", async () => {
    for (const name of ["a", "b", "c"]) await storage.storeCheckpoint(checkpoint(jobId, name))
    const first = await storage.page("getCheckpointsByJobId", { jobId, limit: 2 })
    assert.deepEqual(first.items.map((found) => found.id), ["a", "b"])
    const second = await storage.page("getCheckpointsByJobId", { jobId, limit: 2, after: first.next })
    assert.deepEqual(second.items.map((found) => found.id), ["c"])
    assert.equal(second.next, undefined)
  })

  test("a job, its checkpoints and events are read as they were", async () => {
    await storage.storeJob(job(jobId))
    await storage.storeCheckpoint(checkpoint(jobId, "c"))
    const then = await storage.store("storeEvent", event(jobId, 1))
    await storage.storeCheckpoint(checkpoint(jobId, "c", { status: "later" }))
    await storage.storeEvent(event(jobId, 2))
    const last = await storage.store("storeJob", job(jobId, { status: "later" }))
    assert.deepEqual(await storage.retrieveJob(jobId, { asOf: then }), job(jobId))
    assert.equal(await storage.retrieveJob(jobId, { asOf: then - 3 }), undefined)
    assert.deepEqual(await storage.retrieveCheckpoint(jobId, "c", { asOf: then }), checkpoint(jobId, "c"))
    assert.deepEqual(await storage.getCheckpointsByJobId(jobId, { asOf: then }), [checkpoint(jobId, "c")])
    assert.equal((await storage.getEventsByRun(jobId, "r", { asOf: then })).length, 1)
    assert.deepEqual((await storage.getEventContents(jobId, "r", undefined, { asOf: then })).map(({ n }) => n), [1])
    const page = await storage.page("getEventContents", { jobId, runId: "r", asOf: new Date(Date.now() + 86_400_000) })
    assert.deepEqual([page.items.length, page.asOf >= last], [2, true])
    assert.deepEqual((await storage.page("getEventsByRun", { jobId, runId: "r", asOf: new Date(0) })).items, [])
    await assert.rejects(storage.retrieveJob(jobId, { asOf: 2 ** 52 }), PositionGone)
    for (const asOf of [1.5, "1", new Date(NaN)]) await assert.rejects(storage.retrieveJob(jobId, { asOf }), InvalidArgument)
  })

  test("jobs and runs are found by their events, and parts of events are left out", async () => {
    for (const n of range(3)) {
      void storage.storeEvent(event(jobId, n, { stepNumber: n, checkpoint: { messages: [n], n } }))
    }
    await storage.storeCheckpoint(checkpoint(jobId, "c"))
    const { items: [run], next } = await storage.listRuns({ jobId, limit: 1 })
    assert.deepEqual([run.jobId, run.runId, run.parent, next], [jobId, "r", null, undefined])
    assert.deepEqual(run.records, { runSettings: 0, checkpoints: 1, events: 3 })
    const jobs = await storage.listJobs({ limit: 1000 })
    assert.equal(jobs.items.find((found) => found.jobId === jobId)?.runs, 1)
    const args = { jobId, runId: "r", newestFirst: true, minStep: 1, limit: 1, omit: ["checkpoint.messages"] }
    const page = await storage.page("getEventContents", args)
    assert.deepEqual(page.items.map((found) => found.checkpoint), [{ n: 2 }])
    const record = await storage.getEvent(run.firstPosition)
    assert.deepEqual([record.position, record.op, record.value.n], [run.firstPosition, "storeEvent", 0])
    await assert.rejects(storage.getEvent(2 ** 52), { code: "NOT_FOUND" })
  })

  test("events come by time and ties as stored, up to a step", async () => {
    for (const n of [3, 1, 2, 0]) void storage.storeEvent(event(jobId, n))
    await storage.storeEvent(event(jobId, 9, { timestamp: 1.5, stepNumber: 7 }))
    assert.deepEqual(await numbersOf(storage, jobId), [9, 3, 1, 2, 0])
    assert.deepEqual((await storage.getEventContents(jobId, "r", 6)).map((found) => found.n), [3, 1, 2, 0])
    assert.deepEqual((await storage.getEventsByRun(jobId, "r")).map((found) => found.stepNumber), [1, 1, 1, 1, 7])
    assert.deepEqual(await storage.getEventContents(jobId, "another"), [])
  })

  test("the value at the call is stored, and the order of the calls kept", async () => {
    const changing = event(jobId, 0)
    for (const n of range(10_000)) {
      changing.n = n
      changing.id = `e${n}`
      void storage.storeEvent(changing)
    }
    changing.n = -1
    await storage.flush()
    assert.deepEqual(await numbersOf(storage, jobId), range(10_000))
  })

  test("the last of un-awaited stores of one checkpoint wins", async () => {
    for (const n of range(100)) void storage.storeCheckpoint(checkpoint(jobId, "c", { stepNumber: n }))
    await storage.flush()
    assert.equal((await storage.retrieveCheckpoint(jobId, "c")).stepNumber, 99)
  })

  for (const [broken, field] of [
    [{ stepNumber: -1 }, "stepNumber"],
    [{ timestamp: NaN }, "timestamp"],
    [{ runId: undefined }, "runId"],
    [{ type: "a.b" }, "type"],
    [{ jobId: "../../x" }, "jobId"],
    [{ runId: "x".repeat(201) }, "runId"],
  ]) {
    test(`a bad ${field} is refused by name and the next event is stored: ${JSON.stringify(broken)}`, async () => {
      const refused = await storage.storeEvent(event(jobId, 1, broken)).catch((error) => error)
      assert.ok(refused instanceof Refused && refused instanceof StorageError && refused instanceof Error)
      const { name, code, op, retryable } = refused
      assert.deepEqual(
        { name, code, field: refused.field, op, retryable },
        { name: "Refused", code: "BAD_VALUE", field, op: "storeEvent", retryable: false },
      )
      await storage.storeEvent(event(jobId, 2))
      assert.deepEqual(await numbersOf(storage, jobId), [2])
    })
  }

  test("what JSON has no form for is an error of the call", async () => {
    const circle = event(jobId, 1)
    circle.self = circle
    for (const bad of [event(jobId, 1, { bad: 1n }), circle, undefined, () => 1]) {
      await assert.rejects(storage.storeEvent(bad), InvalidArgument)
    }
    await assert.rejects(storage.storeEvent([event(jobId, 1)]), { code: "BAD_JSON" })
    await storage.storeEvent(event(jobId, 2, { left: undefined, when: new Date(0) }))
    const [found] = await storage.getEventContents(jobId, "r")
    assert.deepEqual(found, event(jobId, 2, { when: "1970-01-01T00:00:00.000Z" }))
  })

  test("one that is refused among many un-awaited ones rejects alone", async () => {
    const stores = range(300).map((n) => storage.store("storeEvent", event(jobId, n, { stepNumber: n === 150 ? -1 : 1 })))
    const outcomes = await Promise.allSettled(stores)
    assert.deepEqual(outcomes.flatMap(({ status }, n) => (status === "rejected" ? [n] : [])), [150])
    const positions = outcomes.flatMap(({ value }) => value ?? [])
    assert.deepEqual(positions, [...new Set(positions)].sort((a, b) => a - b))
    assert.deepEqual(await numbersOf(storage, jobId), range(300).filter((n) => n !== 150))
  })

  test("an unknown checkpoint is an error with the reference's words", async () => {
    const missing = await storage.retrieveCheckpoint(jobId, "w").catch((error) => error)
    assert.ok(missing instanceof CheckpointNotFound)
    assert.deepEqual([missing.message, missing.code], ["checkpoint not found: w", "NOT_FOUND"])
  })

  test("a setting is kept and comes with what it lacks", async () => {
    await storage.storeRunSetting(setting(jobId))
    await storage.storeRunSetting(setting(jobId, { model: "another" }))
    const [found] = (await storage.getAllRuns()).filter((one) => one.jobId === jobId)
    assert.ok(found.updatedAt > 1_700_000_000_000)
    assert.deepEqual(found, setting(jobId, { updatedAt: found.updatedAt, reasoningBudget: "low", maxSteps: 100 }))
  })

  test("an event of 40 MiB and an answer of 80 MiB travel in parts, in order", async () => {
    const values = [1, 2, 3].map((n) => event(jobId, n, { text: `${n}`.repeat(n === 2 ? 1 : 41_943_040) }))
    await Promise.all(values.map((value) => storage.storeEvent(value)))
    const found = await storage.getEventContents(jobId, "r")
    assert.deepEqual(found.map((one) => [one.n, one.text.length, one.text[0]]), [
      [1, 41_943_040, "1"],
      [2, 1, "2"],
      [3, 41_943_040, "3"],
    ])
  })

  test("a long array comes back whole", async () => {
    const numbers = range(1_000_000)
    await storage.storeEvent(event(jobId, 1, { numbers }))
    assert.deepEqual((await storage.getEventContents(jobId, "r"))[0].numbers, numbers)
  })

  test("records are followed in order, once, and as they come", async () => {
    const first = await storage.store("storeJob", job(jobId))
    const seen = []
    const following = (async () => {
      for await (const record of storage.follow({ after: first - 1, jobId })) {
        seen.push(record.position)
        if (seen.length === 3) return
      }
    })()
    const second = await storage.store("storeEvent", event(jobId, 1))
    await storage.storeEvent(event(`${jobId}-other`, 1))
    const third = await storage.store("storeCheckpoint", checkpoint(jobId, "c"))
    await following
    assert.deepEqual(seen, [first, second, third])
    const all = []
    for await (const record of storage.follow({ after: first - 1, jobId, idleMs: 0 })) all.push(record.op)
    assert.deepEqual(all, ["storeJob", "storeEvent", "storeCheckpoint"])
    const some = []
    for await (const { op } of storage.follow({ last: 99, jobId, ops: ["storeJob"], idleMs: 0 })) some.push(op)
    assert.deepEqual(some, all.filter((op) => op === "storeJob"))
    const omit = ["stepNumber", "type"]
    const { items } = await storage.readAll({ after: second - 1, jobId, omit })
    const fewer = storage.follow({ after: second - 1, jobId, omit, idleMs: 0 })
    for await (const { position, value } of fewer) {
      assert.equal("stepNumber" in value || "type" in value, false)
      assert.deepEqual(value, items.find((item) => item.position === position).value)
    }
    const none = await storage.readAll({ after: first - 1, jobId, types: ["nothing"] })
    assert.deepEqual([none.items, none.next], [[], none.position])
    const name = `cursor-${jobId}`
    const handled = []
    for await (const record of storage.follow({ name, after: first - 1, jobId, idleMs: 0 })) {
      if (handled.length === 2) break
      handled.push(record.position)
      await storage.commit(record)
    }
    const options = { name, jobId, idleMs: 0, commitEveryMs: 0 }
    for await (const record of storage.follow(options)) handled.push(record.position)
    assert.deepEqual(handled, seen)
    const [cursor] = (await storage.cursors()).items.filter((one) => one.name === name)
    assert.equal(cursor.lag, 0)
    await assert.rejects(storage.setCursor(name, 1), ({ code }) => code === "CURSOR_BACK")
    await storage.setCursor(name, 1, { force: true })
    await storage.deleteCursor(name)
    assert.deepEqual((await storage.cursors()).items.map((one) => one.name).includes(name), false)
    await assert.rejects(storage.follow({ after: 1e9, idleMs: 0 }).next(), PositionGone)
    const { epoch } = (await storage.readAll({ after: first - 1, limit: 1 })).items[0]
    assert.equal((await storage.hello()).epoch, epoch)
    assert.equal((await storage.follow({ after: first, epoch, idleMs: 0 }).next()).value.epoch, epoch)
    const other = "1-0000000000000000"
    await assert.rejects(storage.follow({ after: first, epoch: other, idleMs: 0 }).next(), PositionGone)
    await assert.rejects(storage.readAll({ after: first, epoch: other }), PositionGone)
    const page = await storage.readAll({ after: first - 1, limit: 1 })
    assert.deepEqual([page.items[0].position, page.next], [first, first])
  })

  test("the daemon says who it is", async () => {
    const hello = await storage.hello()
    assert.deepEqual([hello.server, hello.base], ["perstack-stored", daemon.base])
    assert.ok((await storage.ping()) > 0)
    assert.ok((await storage.stats()).position >= 0)
  })

  test("a read sees what was called for before it, awaited or not", async () => {
    const own = createStorage({ endpoint: daemon.endpoint })
    const seen = []
    for (const round of range(20)) {
      for (const n of range(100)) void own.storeEvent(event(jobId, round * 100 + n))
      const reads = [own.getEventContents(jobId, "r"), own.page("getEventsByRun", { jobId, runId: "r" })]
      void own.storeJob(job(jobId, { totalSteps: round }))
      reads.push(own.retrieveJob(jobId))
      const [events, page, found] = await Promise.all(reads)
      seen.push([events.length, page.items.length, found.totalSteps])
    }
    assert.deepEqual(seen, range(20).map((round) => [100 * round + 100, 100 * round + 100, round]))
    const refused = assert.rejects(own.storeEvent(event(jobId, 0, { stepNumber: -1 })), Refused)
    assert.equal((await own.getEventsByRun(jobId, "r")).length, 2000) // no read waits for ever for one that failed
    await refused
    await own.close()
  })

  test("a pipeline knows the position of each store, and its errors come up when it is flushed", async () => {
    const pipeline = storage.pipeline()
    pipeline.storeJob(job(jobId))
    for (const n of range(200)) pipeline.storeEvent(event(jobId, n, { stepNumber: n === 100 ? -1 : 1 }))
    pipeline.storeCheckpoint(checkpoint(jobId, "c"))
    pipeline.storeRunSetting(setting(jobId))
    await assert.rejects(pipeline.flush(), { code: "BAD_VALUE" })
    const positions = await pipeline.flush()
    assert.equal(positions, pipeline.positions)
    assert.deepEqual(positions.flatMap((position, i) => (position === undefined ? [i] : [])), [101])
    assert.deepEqual(pipeline.refusals.map(({ index, error }) => [index, error.field]), [[101, "stepNumber"]])
    const [first] = positions
    const stored = (await storage.readAll({ after: first - 1, limit: 203 })).items
    assert.deepEqual(
      stored.flatMap(({ position, value }) => ((value.jobId ?? value.id) === jobId ? [position] : [])),
      positions.filter((position) => position !== undefined),
    )
    pipeline.storeEvent({ ...event(jobId, 1), bad: 1n })
    await assert.rejects(pipeline.flush(), InvalidArgument)
  })

  test("an error's stack names the call that it comes of", async () => {
    async function theCaller(call) {
      return await call().catch((error) => error)
    }
    const bad = event(jobId, 1, { stepNumber: -1 })
    for (const call of [
      () => storage.storeEvent(bad),
      () => storage.store("storeEvent", bad),
      () => storage.retrieveCheckpoint(jobId, "no"),
      () => storage.page("getEventsByRun", {}),
    ]) {
      const error = await theCaller(call)
      assert.ok(error.stack.startsWith(`${error.name}: ${error.message}\n    at `), error.stack)
      assert.match(error.stack, /at (async )?theCaller \(.*class\.test\.mjs:\d+:\d+\)/)
    }
    assert.ok(Error.stackTraceLimit >= 10)
  })

  test("closing lets un-awaited stores and reads under way come to their end, and nothing after", async () => {
    const closing = createStorage({ endpoint: daemon.endpoint })
    const stores = range(500).map((n) => closing.store("storeEvent", event(jobId, n)))
    const read = closing.getEventContents(jobId, "r")
    const following = closing.follow({ jobId: "nothing" }).next()
    await closing.close()
    assert.equal(new Set(await Promise.all(stores)).size, 500)
    assert.ok(Array.isArray(await read))
    assert.deepEqual(await following, { done: true, value: undefined })
    await assert.rejects(closing.storeEvent(event(jobId, 1)), ClosedError)
    await assert.rejects(closing.getAllJobs(), ClosedError)
    await closing.close()
    assert.deepEqual(await numbersOf(storage, jobId), range(500))
  })
})
