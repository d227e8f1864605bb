// Stores a job and the events of a run, and reads them back. The daemon is that of ./perstack, or PERSTACK_STORED_*.

import { createInitialJob, createStorage } from "perstack-storage-client"

const run = { jobId: "job-1", runId: "run-1", expertKey: "@acme/writer@1.0.0" }
const event = (stepNumber, type, more) => ({
  id: `event-${stepNumber}`,
  type,
  stepNumber,
  timestamp: Date.now(),
  ...run,
  ...more,
})

const storage = createStorage()
await storage.storeJob(createInitialJob("job-1", "@acme/writer@1.0.0", 10))
await storage.storeEvent(event(0, "startRun"))
await storage.storeEvent(event(1, "completeRun", { text: "Hello." }))

console.log("job", (await storage.retrieveJob("job-1"))?.status ?? "unknown")
for (const stored of await storage.getEventContents("job-1", "run-1")) {
  console.log(stored.stepNumber, stored.type)
}
await storage.close()
