// An agent with the TypeScript client.
// node perstack_agent.mjs ENDPOINT INDEX IN_FLIGHT SECONDS RATE   see agent.py for what it prints.
import { createStorage } from "../../client/typescript/dist/index.js"
import { run } from "./agent.mjs"

const [endpoint, index, inFlight, seconds, rate] = process.argv.slice(2)
const pad = "x".repeat(850)
const storage = createStorage({ endpoint, timeoutMs: 120_000 })
await storage.ping()

const store = (i) =>
  storage.storeEvent({ type: "streamReasoning", id: `${index}-${i}`, expertKey: "@acme/e@1.0.0", timestamp: 1795406152251 + i,
    jobId: `job${index}`, runId: "run1", stepNumber: Math.floor(i / 50), delta: pad })

await run(store, Number(inFlight), Number(seconds), Number(rate))
await storage.close()
