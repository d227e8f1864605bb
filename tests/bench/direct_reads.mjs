// Reads of the files as the reference does them: node direct_reads.mjs BASE CALL TIMES
// prints the milliseconds of each time as JSON.
import { readdir, readFile } from "node:fs/promises"

const [base, call, times] = process.argv.slice(2)
const run = `${base}/jobs/job0/runs/run1`

async function eventNames() {
  return (await readdir(run)).filter((name) => name.startsWith("event-"))
}

async function json(path) {
  try {
    return [JSON.parse(await readFile(path, "utf8"))]
  } catch {
    return []
  }
}

const calls = {
  async getEventsByRun() {
    return (await eventNames())
      .map((name) => {
        const [, timestamp, stepNumber, type] = name.split(".")[0].split("-")
        return { timestamp: Number(timestamp), stepNumber: Number(stepNumber), type }
      })
      .sort((a, b) => a.stepNumber - b.stepNumber)
  },
  async getEventContents() {
    const names = (await eventNames()).sort()
    return (await Promise.all(names.map((name) => json(`${run}/${name}`)))).flat()
  },
  async getAllJobs() {
    const ids = await readdir(`${base}/jobs`)
    const jobs = (await Promise.all(ids.map((id) => json(`${base}/jobs/${id}/job.json`)))).flat()
    return jobs.sort((a, b) => b.startedAt - a.startedAt)
  },
  async getAllRuns() {
    const found = []
    for (const id of await readdir(`${base}/jobs`)) {
      let runs = []
      try {
        runs = await readdir(`${base}/jobs/${id}/runs`)
      } catch {
        continue
      }
      for (const name of runs) found.push(...(await json(`${base}/jobs/${id}/runs/${name}/run-setting.json`)))
    }
    return found.sort((a, b) => b.updatedAt - a.updatedAt)
  },
  async getCheckpointsByJobId() {
    const folder = `${base}/jobs/job0/checkpoints`
    const found = (await Promise.all((await readdir(folder)).map((name) => json(`${folder}/${name}`)))).flat()
    return found.sort((a, b) => a.stepNumber - b.stepNumber)
  },
}

const took = []
for (let i = 0; i < Number(times); i++) {
  const before = performance.now()
  const found = await calls[call]()
  took.push(performance.now() - before)
  if (found.length === 0) throw new Error(`${call} found nothing`)
}
console.log(JSON.stringify(took))
