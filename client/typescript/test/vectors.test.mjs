// The codec on the golden vectors of the protocol: requests are made and answers are opened byte for byte.

import assert from "node:assert/strict"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, test } from "node:test"

import * as frames from "../dist/core/frames.js"
import { ProtocolError } from "perstack-storage-client"
import { ROOT } from "./support.mjs"

const FOLDER = join(ROOT, "proto/vectors")
const STORES = new Set([
  "storeJob", "storeCheckpoint", "storeEvent", "storeRunSetting", "deleteJob", "deleteRun", "redactRunSetting",
])
const FIELDS = new Set(["v", "op", "id", "session", "seq", "settled", "items", "timeoutMs", "atLeast"])

function bytesOf(piece) {
  if (Array.isArray(piece)) return Buffer.concat(piece.map(bytesOf))
  if (typeof piece === "string") return Buffer.from(piece)
  return "base64" in piece ? Buffer.from(piece.base64, "base64") : Buffer.from(piece.repeat.repeat(piece.times))
}

/** The last frame of a message, and the body in it. */
function opened({ frames: pieces }) {
  const frame = bytesOf(pieces.at(-1))
  const end = frame.indexOf("\n")
  return { frame, body: end < 0 ? Buffer.alloc(0) : frame.subarray(end + 1) }
}

const files = readdirSync(FOLDER).filter((name) => name.endsWith(".json"))
const exchanges = files.flatMap((file) =>
  JSON.parse(readFileSync(join(FOLDER, file), "utf8")).exchanges.map((exchange) => ({ file, ...exchange })),
)

/** Whether this client ever makes such a request: its stores have a session, and `settled` always. */
function isOurs({ request }) {
  const header = request?.header
  if (header === undefined || !Object.keys(header).every((name) => FIELDS.has(name))) return false
  if (header.op === "store" && !(header.items ?? [[]]).every((item) => item.length === 2)) return false
  return !(STORES.has(header.op) || header.op === "store") || ("session" in header && "settled" in header)
}

function made({ op, id, session, seq, settled, items, timeoutMs, atLeast }, body) {
  const place = { session, seq, settled }
  if (op === "store") {
    // The codec cuts nothing: it is given the values, of which the lengths are those of the header.
    let start = 0
    const bodies = items.map(([, length]) => body.subarray(start, (start += length)))
    return frames.batchRequest(id, place, items.map(([name]) => name), bodies)
  }
  if (STORES.has(op)) return frames.storeRequest(op, id, place, body)
  return frames.request(op, id, body.toString(), { session, timeoutMs, atLeast })
}

/** A batch of which the lengths don't add up can't be made from values. */
function addsUp({ request }) {
  const { header } = request
  if (header.op !== "store") return true
  return header.items.reduce((sum, [, length]) => sum + Math.max(length, 0), 0) === opened(request).body.length
}

const ours = exchanges.filter((exchange) => isOurs(exchange) && addsUp(exchange))

describe("requests", () => {
  for (const { file, name, request } of ours) {
    test(`${file} ${name}`, () => {
      const { frame, body } = opened(request)
      const bytes = made(request.header, body)
      const same = bytes.equals(frame) || bytes.equals(Buffer.concat([frame, Buffer.from("\n")]))
      assert.ok(same, `${bytes} is not ${frame}`)
    })
  }

  test("every operation is among them", () => {
    assert.ok(ours.length > 60, String(ours.length))
    const ops = new Set(ours.map(({ request }) => request.header.op))
    for (const op of [...STORES, "store", "retrieveJob", "getAllRuns", "readAll", "readPart", "hello", "ping", "stats"]) {
      assert.ok(ops.has(op), op)
    }
  })

  test("the parts of a value are cut and made byte for byte", () => {
    const parts = exchanges.filter(({ file }) => file === "parts.json").slice(0, 3)
    const value = Buffer.concat(parts.map(({ request }) => opened(request).body))
    const size = opened(parts[0].request).body.length
    for (const [part, { request }] of parts.entries()) {
      const { op, id, session, seq, settled } = request.header
      const place = { session, seq, settled }
      assert.deepEqual(frames.partRequest(op, id, place, value, part, size), opened(request).frame)
    }
  })
})

describe("answers", () => {
  for (const { file, name, answer } of exchanges) {
    test(`${file} ${name}`, () => {
      const { frame, body } = opened(answer)
      const { header } = answer
      if (header === undefined || header.id === null) {
        assert.throws(() => frames.parseAnswer(frame), (error) => {
          assert.ok(error instanceof ProtocolError)
          if (header !== undefined) assert.ok(error.message.includes(header.error.message))
          return true
        })
        return
      }
      const found = frames.parseAnswer(frame)
      assert.deepEqual(found.header, header)
      assert.deepEqual(found.body, body)
      if (header.ok) assert.equal(found.error, undefined)
      else for (const key of ["code", "message", "field", "retryable"]) assert.equal(found.error[key], header.error[key])
    })
  }
})
