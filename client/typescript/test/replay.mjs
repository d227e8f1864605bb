// An agent that replays captured runs without waiting: node replay.mjs ENDPOINT RUN...
// It prints what went wrong: unhandled rejections end it, as they end any program.

import { setTimeout as sleep } from "node:timers/promises"

import { createStorage } from "perstack-storage-client"
import { capturedRun, underOtherJob } from "./support.mjs"

const CALLS_AT_ONCE = 20
const PAUSE_MS = 20 // as a model takes its time, too: the daemon is to be killed in the middle

const [endpoint, ...names] = process.argv.slice(2)
const storage = createStorage({ endpoint, timeoutMs: 60_000 })
for (const name of names) {
  for (const [i, { op, value }] of capturedRun(name).entries()) {
    void storage[op](underOtherJob(value, `replay-${name}`))
    if (i % CALLS_AT_ONCE === 0) await sleep(PAUSE_MS)
  }
}
