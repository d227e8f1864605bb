// The TypeScript client behind JSON lines, for the behaviour suite: node bridge.mjs <its index.js>
//
// The first line of standard input is the options. Each later one is a call, {"id", "call", "args"}, made at once and
// in the order of the lines; its outcome is a line {"id", "value"} or {"id", "error"}. After the call "close" comes the
// next line of options. At the end of input it closes.

import { pathToFileURL } from "node:url"

const { createStorage } = await import(pathToFileURL(process.argv[2]).href)
let storage

let resumed = {}
const calls = {
  // All of them un-awaited, and the object changes behind each call.
  async storeChanging(value, count) {
    const stored = []
    for (let n = 0; n < count; n++) {
      value.n = n
      value.id = `e${n}`
      stored.push(storage.storeEvent(value))
    }
    value.n = -1
    await Promise.all(stored)
  },
  async resume(key, jobId, runId) {
    const job = (resumed[key] = await storage.resume(jobId, runId ?? undefined))
    return { job: job.job ?? null, position: job.position }
  },
  async resumedStore(key, op, value) {
    return [await resumed[key].store(op, value), resumed[key].position]
  },
  async close() {
    const closed = storage
    storage = undefined
    resumed = {}
    await closed.close()
  },
  async follow(options) {
    const records = []
    for await (const record of storage.follow(options)) records.push(record)
    return records
  },
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

function told({ name, message, code, field, retryable, index, position }) {
  return { name, message, code, field, retryable, item: index, position }
}

function take(line) {
  const { id, call, args } = JSON.parse(line)
  const outcome = (calls[call] ?? storage[call].bind(storage))(...args)
  outcome.then(
    (value) => say({ id, value }),
    (error) => say({ id, error: told(error) }),
  )
}

let pieces = []
for await (const chunk of process.stdin) {
  let start = 0
  for (let end; (end = chunk.indexOf(10, start)) >= 0; start = end + 1) {
    const line = Buffer.concat([...pieces, chunk.subarray(start, end)]).toString()
    pieces = []
    if (storage === undefined) storage = createStorage(JSON.parse(line))
    else take(line)
  }
  pieces.push(chunk.subarray(start))
}
await storage?.close()
