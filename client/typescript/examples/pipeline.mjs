// Stores many events that don't wait for each other: they keep the order of the calls, and travel in batches.

import { createStorage, Refused } from "perstack-storage-client"

const EVENTS = 1_000

const storage = createStorage()
const begun = performance.now()
const pipeline = storage.pipeline()
for (let number = 0; number < EVENTS; number++) {
  pipeline.storeEvent({
    id: `delta-${number}`,
    type: "streamReasoning",
    stepNumber: 1,
    timestamp: Date.now(),
    delta: "…",
    jobId: "job-2",
    runId: "run-1",
    expertKey: "@acme/writer@1.0.0",
  })
}
try {
  await pipeline.flush()
} catch (error) {
  if (!(error instanceof Refused)) throw error
  console.error(error.message) // the first one; the others were stored all the same
}
const seconds = (performance.now() - begun) / 1000
const stored = pipeline.positions.filter((position) => position !== undefined)
console.log(`${stored.length} events on disk, ${(stored.length / seconds).toFixed(0)} a second`)
await storage.close()
