// A daemon that keeps nothing and answers at once, in a process of its own: node fake.mjs ENDPOINT
// A second argument is a time in ms that it takes for each read of a job.

import { setTimeout as sleep } from "node:timers/promises"

import { Router } from "zeromq"

const HELLO = { window: { records: 1024, bytes: 16_777_216 }, limits: { frameBytes: 16_777_216, batchItems: 1024 } }
const readMs = Number(process.argv[3] ?? 0)
const socket = new Router({ linger: 0 })
await socket.bind(process.argv[2])
console.log("ready")
let position = 0
for await (const [client, frame] of socket) {
  const { id, op, items } = JSON.parse(frame.toString().split("\n")[0])
  const answer = { v: 1, id, ok: true }
  if (op.startsWith("store")) {
    const count = items?.length ?? 1
    Object.assign(answer, { position: position + 1, ...(items === undefined ? {} : { count }) })
    position += count
  }
  if (op === "retrieveJob") await sleep(readMs)
  await socket.send([client, `${JSON.stringify(answer)}\n${op === "hello" ? JSON.stringify(HELLO) : "[]"}`])
}
