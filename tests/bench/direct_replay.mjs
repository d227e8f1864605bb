// Replays the captured runs by writing the files as the reference does: events not awaited, as streaming calls are.
// node direct_replay.mjs BASE INDEX   see agent.py for what it prints.
import { mkdir, writeFile } from "node:fs/promises"
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import { createInterface } from "node:readline"
import { clock } from "./agent.mjs"

const [base, index] = process.argv.slice(2)
const data = new URL("../data/", import.meta.url)
const calls = ["a", "b", "c"].flatMap((name) =>
  gunzipSync(readFileSync(new URL(`perstack-run-${name}.jsonl.gz`, data)))
    .toString()
    .trim()
    .split("\n")
    .map((line) => {
      const { op, value } = JSON.parse(line)
      const old = value.jobId ?? value.id
      const jobId = old === "job1" ? `${name}${index}` : `${name}${index}.${old}`
      return { op, value: value.jobId === undefined ? { ...value, id: jobId } : { ...value, jobId } }
    }),
)

async function put(dir, name, text) {
  await mkdir(dir, { recursive: true })
  await writeFile(`${dir}/${name}`, text)
}

function store({ op, value }) {
  if (op === "storeJob") return put(`${base}/jobs/${value.id}`, "job.json", JSON.stringify(value, null, 2))
  const job = `${base}/jobs/${value.jobId}`
  if (op === "storeCheckpoint") return put(`${job}/checkpoints`, `${value.id}.json`, JSON.stringify(value))
  const name = `event-${value.timestamp}-${value.stepNumber}-${value.type}.json`
  return put(`${job}/runs/${value.runId}`, name, JSON.stringify(value))
}

console.log("ready")
const lines = createInterface({ input: process.stdin })
await new Promise((resolve) => lines.once("line", resolve))
lines.close()
const begin = clock()
let pending = []
for (const call of calls) {
  pending.push(store(call))
  if (pending.length >= 64 || call.op !== "storeEvent") {
    await Promise.all(pending)
    pending = []
  }
}
await Promise.all(pending)
const count = calls.filter((call) => call.op === "storeEvent").length
console.log(JSON.stringify({ begin, agents: [{ count, end: clock(), latencies: [] }] }))
