// Stores many events that don't wait for each other: they keep the order of the calls, and travel in batches.

import { createStorage } from "perstack-storage-client"

const EVENTS = 1_000

const storage = createStorage()
const begun = performance.now()
const stores = Array.from({ length: EVENTS }, (_, number) =>
  storage.storeEvent({
    id: `delta-${number}`,
    type: "streamReasoning",
    stepNumber: 1,
    timestamp: Date.now(),
    delta: "…",
    jobId: "job-2",
    runId: "run-1",
    expertKey: "@acme/writer@1.0.0",
  }),
)
const outcomes = await Promise.allSettled(stores)
const stored = outcomes.filter(({ status }) => status === "fulfilled").length
const seconds = (performance.now() - begun) / 1000
console.log(`${stored} events on disk, ${(stored / seconds).toFixed(0)} a second`)
await storage.close()
