// A program built as Perstack's command line is: an expert, three delegates side by side, each event printed and stored
// by a listener that nobody awaits. What was printed is what is stored, through kills of the daemon.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { pathToFileURL } from "node:url"

import { createStorage } from "perstack-storage-client"
import { Daemon, eventually, ROOT, temporaryFolder } from "./support.mjs"

const REGISTER = pathToFileURL(join(ROOT, "client/typescript/dist/register.js")).href
const DELEGATES = 3
const STEPS = 4
const DELTAS = 60
/** Of a run: its start, and in each step the deltas and what ends it. */
const EVENTS_OF_RUN = 1 + STEPS * (DELTAS + 1)
const PROGRAM = `import { defaultStoreEvent } from "@perstack/filesystem-storage"
import { setTimeout as pause } from "node:timers/promises"

const jobId = process.argv[2]
const listen = (event) => {
  console.log(JSON.stringify(event))
  defaultStoreEvent(event)
}
let number = 0
async function run(runId) {
  const emit = (type, stepNumber, more) =>
    listen({ id: \`\${runId}-\${number++}\`, type, expertKey: "k", timestamp: Date.now(), jobId, runId, stepNumber, ...more })
  emit("startRun", 1)
  for (let step = 1; step <= ${STEPS}; step++) {
    for (let delta = 0; delta < ${DELTAS}; delta++) {
      emit("streamReasoning", step, { delta: "…" })
      if (delta % 8 === 0) await pause(2)
    }
    emit("continueToNextStep", step, { checkpoint: { messages: Array(step).fill("m".repeat(2000)) } })
  }
}
await run("main")
await Promise.all(Array.from({ length: ${DELEGATES} }, (_, n) => run(\`child-\${n}\`)))
await run("continued")
`

test("three programs with three delegates each: what they print is what is stored", async (context) => {
  const folder = temporaryFolder(context)
  const daemon = await Daemon.on(context, join(folder, "perstack"))
  const program = join(folder, "program.mjs")
  writeFileSync(program, PROGRAM)
  const printed = []
  const programs = ["a", "b", "c"].map((job) => {
    const child = spawn(process.execPath, ["--import", REGISTER, program, job], { cwd: folder })
    context.after(() => child.kill("SIGKILL"))
    let rest = "", said = ""
    child.stderr.setEncoding("utf8").on("data", (text) => (said += text))
    child.stdout.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n")
      rest = lines.pop()
      printed.push(...lines)
    })
    return new Promise((resolve) => child.once("close", (code) => resolve([code, said])))
  })
  for (const some of [300, 1500]) {
    await eventually(() => printed.length >= some, `${some} events are printed`, 60_000)
    await daemon.kill()
    await daemon.start()
  }
  for (const ended of programs) assert.deepEqual(await ended, [0, ""])
  const expected = 3 * (DELEGATES + 2) * EVENTS_OF_RUN
  assert.equal(printed.length, expected)
  const storage = createStorage({ endpoint: daemon.endpoint })
  const stored = []
  for await (const { value } of storage.follow({ idleMs: 0 })) stored.push(JSON.stringify(value))
  assert.deepEqual(stored.sort(), printed.sort())
  for (const runId of ["main", "child-0", "child-2", "continued"]) {
    assert.equal((await storage.getEventsByRun("b", runId)).length, EVENTS_OF_RUN)
  }
  await storage.close()
})
