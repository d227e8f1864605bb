// An agent that replays captured runs without waiting: node replay.mjs ENDPOINT RUN...
// In the middle of each run it says "mark" and waits for a line: time for the daemon to be killed under what is
// in flight. It prints what went wrong: unhandled rejections end it, as they end any program.

import { once } from "node:events"

import { createStorage } from "perstack-storage-client"
import { capturedRun, underOtherJob } from "./support.mjs"

const [endpoint, ...names] = process.argv.slice(2)
const storage = createStorage({ endpoint, timeoutMs: 60_000 })
for (const name of names) {
  const calls = capturedRun(name)
  for (const [i, { op, value }] of calls.entries()) {
    void storage[op](underOtherJob(value, `replay-${name}`))
    if (i % 20 === 0) await new Promise(setImmediate) // as between the deltas of a model
    if (i === calls.length >> 1) {
      console.log("mark")
      await once(process.stdin, "data")
    }
  }
}
process.stdin.destroy()
