// The thread of the module-level functions: it owns the one connection, so that all their calls keep their order.

import { Connection } from "./async/connection.js"
import { plainOf, type PlainError } from "./core/errors.js"
import { checked, type ReadOp } from "./core/reads.js"
import type { Target } from "./wire/target.js"
import { type MessagePort, parentPort, workerData } from "node:worker_threads"

import type { StoreOp } from "./core/batch.js"

/** What the thread is given when it starts. */
export interface WorkerData {
  target: Target
  /** Answers to synchronous calls, of which one is under way at most. */
  answers: MessagePort
  /** Two integers. The first is set to 1 and notified when such an answer is there, the second when the thread is up. */
  state: SharedArrayBuffer
}

/** A call. A synchronous one has the id 0. */
export type WorkerCall =
  | { id: number; store: StoreOp; body: string }
  | { id: number; read: ReadOp; args: string }
  | { id: number; close: true }
  | { id: number; drop: true }

/** What came of it: a position for a store, the body of an answer for a read. */
export interface WorkerAnswer {
  id: number
  value?: number | Uint8Array | undefined
  error?: PlainError
}

const { target, answers, state: shared } = workerData as WorkerData
const state = new Int32Array(shared)
const connection = new Connection(target, false)

async function carryOut(call: WorkerCall): Promise<number | Uint8Array | undefined> {
  if ("store" in call) return connection.store(call.store, Buffer.from(call.body))
  if ("read" in call) return checked(await connection.call(call.read, call.args)).body
  if ("drop" in call) return void connection.drop()
  return void (await connection.close())
}

function tell(answer: WorkerAnswer): void {
  if (answer.id !== 0) return parentPort?.postMessage(answer)
  answers.postMessage(answer)
  Atomics.store(state, 0, 1)
  Atomics.notify(state, 0)
}

parentPort?.on("message", (call: WorkerCall) => {
  carryOut(call).then(
    (value) => tell({ id: call.id, value }),
    (error: unknown) => tell({ id: call.id, error: plainOf(error) }),
  )
})

Atomics.store(state, 1, 1)
