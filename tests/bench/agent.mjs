// What the agents in JavaScript share: ready, go, the loop, and the JSON of agent.py.
import { createInterface } from "node:readline"

const RESERVOIR = 4000

// The steady clock that Python's time.monotonic reads.
export const clock = () => Number(process.hrtime.bigint()) / 1e9

export async function run(store, inFlight, seconds, rate) {
  console.log("ready")
  const lines = createInterface({ input: process.stdin })
  await new Promise((resolve) => lines.once("line", resolve))
  lines.close()
  const begin = clock()
  const latencies = []
  let seen = 0
  let n = 0

  function sample(ms) {
    seen++
    if (latencies.length < RESERVOIR) latencies.push(ms)
    else {
      const place = Math.floor(Math.random() * seen)
      if (place < RESERVOIR) latencies[place] = ms
    }
  }

  async function worker() {
    while (clock() < begin + seconds) {
      const before = performance.now()
      await store(n++)
      sample(performance.now() - before)
    }
  }

  async function paced() {
    const first = begin + Math.random() / rate
    while (n < seconds * rate) {
      const due = first + n / rate
      const early = due - clock()
      if (early > 0) await new Promise((resolve) => setTimeout(resolve, early * 1000))
      const from = Math.max(due, Math.min(clock(), due + 0.0015)) // timers of Node are late by up to 1.5 ms: not its fault
      await store(n++)
      sample((clock() - from) * 1000)
    }
  }

  await (rate > 0 ? paced() : Promise.all(Array.from({ length: inFlight }, worker)))
  console.log(JSON.stringify({ begin, agents: [{ count: n, end: clock(), latencies }] }))
}
