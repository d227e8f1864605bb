// direct_files.mjs with its latencies: the same calls for the same events, begun at a line on stdin.
// node direct_timed.mjs BASE INDEX IN_FLIGHT SECONDS RATE [plain|sync]   see agent.py for what it prints.
import { mkdir, open, rename, writeFile } from "node:fs/promises"
import { run } from "./agent.mjs"

const [base, index, inFlight, seconds, rate, mode = "plain"] = process.argv.slice(2)
const pad = "x".repeat(850)

async function store(i) {
  const event = { type: "streamReasoning", id: `${index}-${i}`, expertKey: "@acme/e@1.0.0", timestamp: 1795406152251 + i,
    jobId: `job${index}`, runId: "run1", stepNumber: Math.floor(i / 50), delta: pad }
  const dir = `${base}/jobs/${event.jobId}/runs/${event.runId}`
  const path = `${dir}/event-${event.timestamp}-${event.stepNumber}-${event.type}.json`
  await mkdir(dir, { recursive: true })
  if (mode === "plain") {
    await writeFile(path, JSON.stringify(event))
    return
  }
  const file = await open(`${path}.tmp`, "w")
  await file.writeFile(JSON.stringify(event))
  await file.sync()
  await file.close()
  await rename(`${path}.tmp`, path)
}

await run(store, Number(inFlight), Number(seconds), Number(rate))
