// A client with several endpoints: it goes over to the next daemon of its history, and to no other.

import assert from "node:assert/strict"
import { join } from "node:path"
import { describe, test } from "node:test"

import { createStorage, DaemonUnavailable, EndpointError, OtherHistory } from "perstack-storage-client"
import { Router } from "zeromq"
import { resolveEndpoint } from "../dist/wire/target.js"
import { event, range, temporaryFolder } from "./support.mjs"

const HELLO = { window: { records: 1024, bytes: 16_777_216 }, limits: { frameBytes: 16_777_216, batchItems: 1024 } }

/** What daemons that share a history have stored: values in order, and the positions of each session. */
class History {
  values = []
  positions = new Map()

  store({ session, seq, items, op }, body) {
    const sizes = items?.map(([, size]) => size) ?? [body.length]
    let start = 0
    return sizes.map((size, i) => {
      const number = `${session} ${seq + i}`
      const value = JSON.parse(body.subarray(start, (start += size)))
      if (!this.positions.has(number)) this.positions.set(number, this.values.push({ op, value }))
      return this.positions.get(number)
    })
  }
}

/** A daemon; `script(header, store)` returns an answer's fields in place of the usual, or null for silence. */
async function fake(context, history, { hello = {}, script = () => undefined } = {}) {
  const socket = new Router({ linger: 0 })
  const endpoint = `ipc://${join(temporaryFolder(context), "d.sock")}`
  await socket.bind(endpoint)
  context.after(() => socket.close())
  const requests = []
  const serve = async () => {
    for await (const [client, frame] of socket) {
      const end = frame.indexOf("\n")
      const header = JSON.parse(frame.subarray(0, end))
      requests.push(header)
      const store = () => history.store(header, frame.subarray(end + 1))
      const scripted = script(header, store)
      if (scripted === null) continue
      let fields = { ok: true, ...scripted }
      if (scripted === undefined && header.seq !== undefined) {
        const positions = store()
        fields = positions.length === 1 ? { ok: true, position: positions[0] } : { ok: true, results: positions }
      }
      const body = header.op === "hello" ? { ...HELLO, store: "h1", replicated: true, ...hello } : []
      await socket.send([client, `${JSON.stringify({ v: 1, id: header.id, ...fields })}\n${JSON.stringify(body)}`])
    }
  }
  serve().catch(() => {})
  return { endpoint, requests }
}

const opsOf = (...daemons) => new Set(daemons.flatMap(({ requests }) => requests.map(({ op }) => op)))

async function storeMany(endpoint, count = 300, timeoutMs = 20_000) {
  const storage = createStorage({ endpoint, timeoutMs })
  const pipeline = storage.pipeline()
  for (const n of range(count)) pipeline.storeEvent(event("j", n))
  try {
    await pipeline.flush()
    await storage.getEventContents("j", "r")
  } finally {
    await storage.close()
  }
  return pipeline.positions
}

describe("several endpoints", { concurrency: true }, () => {
  test("stores go on at the next daemon, in order, each once", async (context) => {
    const history = new History()
    const a = await fake(context, history, {
      script({ seq }, store) {
        if (seq === undefined || seq < 100) return undefined
        if (seq < 180) store()
        return null
      },
    })
    const b = await fake(context, history)
    const positions = await storeMany([a.endpoint, b.endpoint])
    assert.deepEqual(positions, range(300).map((n) => n + 1))
    assert.deepEqual(history.values.map(({ value }) => value), range(300).map((n) => event("j", n)))
    const sessions = new Set([...a.requests, ...b.requests].flatMap(({ session }) => session ?? []))
    assert.equal(sessions.size, 1)
  })

  test("a daemon that is not there is passed over, and one that is only busy is left", async (context) => {
    const history = new History()
    const busy = { ok: false, error: { code: "BUSY", message: "no", retryable: true } }
    const a = await fake(context, history, { script: ({ seq }) => (seq === undefined ? undefined : busy) })
    const c = await fake(context, history)
    const nobody = `ipc://${join(temporaryFolder(context), "d.sock")}`
    assert.deepEqual(await storeMany([nobody, a.endpoint, c.endpoint].join(), 3), [1, 2, 3])
    assert.ok(opsOf(a).has("store"))
  })

  for (const hello of [{ store: "h2" }, { replicated: false }, { store: 7 }]) {
    test(`a daemon of another history gets nothing: ${JSON.stringify(hello)}`, async (context) => {
      const history = new History()
      const a = await fake(context, history, { script: ({ seq }) => (seq > 50 ? null : undefined) })
      const b = await fake(context, history, { hello })
      const c = await fake(context, history)
      const positions = await storeMany([a.endpoint, b.endpoint, c.endpoint])
      assert.deepEqual(positions, range(300).map((n) => n + 1))
      assert.ok([...opsOf(b)].every((op) => op === "hello"))
    })
  }

  test("it is named where no other daemon is left", async (context) => {
    const history = new History()
    const a = await fake(context, history, { script: ({ op }) => (op === "getEventContents" ? null : undefined) })
    const b = await fake(context, history, { hello: { store: "h2" } })
    const failed = await storeMany([a.endpoint, b.endpoint], 1, 3000).catch((error) => error)
    assert.ok(failed instanceof DaemonUnavailable, failed)
    assert.match(failed.message, /d\.sock is passed over: it serves the history h2, not h1/)
    assert.deepEqual(opsOf(b), new Set(["hello"]))
  })

  test("daemons of one machine are refused at once", async (context) => {
    const history = new History()
    const a = await fake(context, history, { hello: { replicated: false } })
    const b = await fake(context, history, { hello: { replicated: false } })
    await assert.rejects(storeMany([a.endpoint, b.endpoint], 3), (error) => {
      return error instanceof OtherHistory && error instanceof EndpointError && /one replicated journal/.test(error.message)
    })
    assert.deepEqual(opsOf(a, b), new Set(["hello"]))
  })

  test("reads name what the client has seen, of daemons that share a history only", async (context) => {
    for (const replicated of [true, false]) {
      const a = await fake(context, new History(), { hello: { replicated } })
      const storage = createStorage({ endpoint: a.endpoint })
      await storage.getAllJobs()
      await Promise.all(range(200).map((n) => storage.store("storeEvent", event("j", n))))
      await storage.getAllJobs()
      await storage.ping()
      await storage.close()
      const named = a.requests.filter(({ seq }) => seq === undefined).map(({ op, atLeast }) => [op, atLeast])
      assert.deepEqual(named, [
        ["hello", undefined],
        ["getAllJobs", undefined],
        ["getAllJobs", replicated ? 200 : undefined],
        ["ping", undefined],
      ])
    }
  })
})

test("endpoints in one text", () => {
  const both = ["ipc:///run/a,b.sock", "tcp://10.0.0.5:7171"]
  assert.deepEqual(resolveEndpoint("ipc:///run/a,b.sock, tcp://10.0.0.5:7171").endpoints, both)
  assert.deepEqual(resolveEndpoint(both).endpoints, both)
  assert.throws(() => resolveEndpoint("ipc:///a,ipc:///a"), EndpointError)
  assert.throws(() => resolveEndpoint([]), EndpointError)
})
