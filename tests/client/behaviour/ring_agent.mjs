// An agent of test_ring.py on the TypeScript client: node ring_agent.mjs <its index.js> <endpoint>
//
// The first line of standard input is its name, its neighbour's, the number of rounds, and values to fill in. Each later
// one is the number of what the neighbour has just stored; that is read, the next one stored, and its number told.

import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"

const [, , index, endpoint] = process.argv
const { createStorage } = await import(pathToFileURL(index).href)
const storage = createStorage({ endpoint })
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const { me, neighbour, rounds, values } = JSON.parse((await lines.next()).value)

async function store(n) {
  const ids = { jobId: me, runId: `r${n}` }
  if (n % 4 === 0) await storage.storeEvent({ ...values.event, ...ids, runId: "r", id: `e${n}` })
  else if (n % 4 === 1) await storage.storeJob({ ...values.job, id: me, totalSteps: n })
  else if (n % 4 === 2) await storage.storeCheckpoint({ ...values.checkpoint, ...ids, id: `c${n}` })
  else await storage.storeRunSetting({ ...values.setting, ...ids })
  process.stdout.write(`${n}\n`)
}

// The neighbour may have gone on meanwhile.
async function isThere(n) {
  if (n % 4 === 0) return (await storage.getEventContents(neighbour, "r")).some(({ id }) => id === `e${n}`)
  if (n % 4 === 1) return (await storage.retrieveJob(neighbour))?.totalSteps >= n
  if (n % 4 === 2) return (await storage.retrieveCheckpoint(neighbour, `c${n}`)).id === `c${n}`
  return (await storage.getAllRuns()).some((run) => run.jobId === neighbour && run.runId === `r${n}`)
}

await store(0)
for (let n = 0; n < rounds; n++) {
  const told = Number((await lines.next()).value)
  if (told !== n || !(await isThere(n))) throw new Error(`${me} does not see number ${n} of ${neighbour}`)
  await store(n + 1)
}
await storage.close()
process.stdin.destroy() // or it keeps the process alive
