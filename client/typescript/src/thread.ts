// The thread of the module-level functions as its owner sees it: how it starts, how it is waited for, why it ended.

import type { Target } from "./wire/target.js"
import type { WorkerAnswer, WorkerCall, WorkerData } from "./worker.js"
import { readdirSync } from "node:fs"
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads"

import { ClosedError, messageOf, StorageError } from "./core/errors.js"
import { WORKER_SOURCE } from "./worker-source.js"

/** A wait for the thread looks so often whether it still lives. */
const SLICE_MS = 250
/** So long it may take to start; mostly it takes a tenth of a second. */
const START_MS = 10_000

/**
 * Runs the program, and says why where that fails or the thread ends: the owner may be blocked, and its event loop,
 * which would hear of it, does not turn then. All of it is a text: there is no file that a bundle could lack.
 */
const PROGRAM = `
  const { workerData } = require("node:worker_threads")
  const state = new Int32Array(workerData.state)
  let posted = false
  const tell = (error) => {
    if (posted) return
    posted = true
    workerData.answers.postMessage({ id: 0, ended: String(error?.message ?? error) })
    Atomics.store(state, 0, 1)
    Atomics.notify(state, 0)
  }
  process.on("uncaughtExceptionMonitor", tell)
  process.on("exit", (code) => tell("it ended with status " + code))
  ;(() => { ${WORKER_SOURCE}
  })()`

/** What the thread posts when it ends, instead of an answer. */
interface Farewell {
  ended: string
}

/** The thread, from its start to its end. */
export class WorkerThread {
  readonly #worker: Worker
  readonly #answers: MessagePort
  /** Whether an answer to a synchronous call is there, and whether the thread is up. */
  readonly #state = new Int32Array(new SharedArrayBuffer(8))
  /** The system's numbers of it; none where they can't be found out. */
  readonly #numbers: string[]

  /** Throws StorageError if no thread can be made. `ended` is called once, when it is no more. */
  constructor(
    target: Target,
    answered: (answer: WorkerAnswer) => void,
    ended: (reason: StorageError) => void,
  ) {
    const { port1, port2 } = new MessageChannel()
    this.#answers = port1
    const state = this.#state.buffer as SharedArrayBuffer
    const before = new Set(threadNumbers())
    try {
      const data: WorkerData = { target, answers: port2, state }
      // Nothing of the program's own flags, such as --require hooks, belongs into this thread.
      const options = { eval: true, workerData: data, transferList: [port2], execArgv: [], name: "perstack-storage" }
      this.#worker = new Worker(PROGRAM, options)
    } catch (error) {
      port1.close()
      throw this.#reason(messageOf(error), error)
    }
    this.#numbers = threadNumbers().filter((number) => !before.has(number))
    this.#worker.on("message", answered)
    this.#worker.on("error", (error: unknown) => ended(this.#reason(messageOf(error), error)))
    this.#worker.on("exit", (code) =>
      ended(this.#isUp ? new ClosedError("the client was closed") : this.#reason(`it ended with status ${code}`)),
    )
    this.#worker.unref()
  }

  /** Lets the thread keep the process alive, or not. */
  holds(process: boolean): void {
    if (process) this.#worker.ref()
    else this.#worker.unref()
  }

  post(call: WorkerCall): void {
    this.#worker.postMessage(call)
  }

  /**
   * Blocks until the thread has answered; throws StorageError if it ends, or does not in time.
   *
   * The time is counted in waits that were made: in that way none passes while the whole process stands still.
   */
  ask(call: WorkerCall, milliseconds: number): WorkerAnswer {
    Atomics.store(this.#state, 0, 0)
    this.post(call)
    for (let waited = 0; Atomics.wait(this.#state, 0, 0, SLICE_MS) === "timed-out"; ) {
      waited += SLICE_MS
      if (waited >= milliseconds || this.#isGone || (waited >= START_MS && !this.#isUp)) break
    }
    const received = receiveMessageOnPort(this.#answers) as { message: WorkerAnswer | Farewell } | undefined
    if (received === undefined) {
      throw this.#reason(this.#isGone ? "it ended without a word, as for want of memory" : "it does not answer")
    }
    if ("ended" in received.message) throw this.#reason(received.message.ended)
    return received.message
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
  }

  /**
   * Leaves a thread that does not answer. One that is up is not ended: zeromq, for tcp, aborts the process where a
   * thread ends while its socket is in use.
   */
  abandon(): void {
    if (this.#isUp) this.post({ id: -1, drop: true })
    else void this.end()
  }

  get #isUp(): boolean {
    return Atomics.load(this.#state, 1) === 1
  }

  /** Whether the system has no such thread any more. */
  get #isGone(): boolean {
    const alive = threadNumbers()
    return this.#numbers.length > 0 && alive.length > 0 && !this.#numbers.some((number) => alive.includes(number))
  }

  #reason(reason: string, cause?: unknown): StorageError {
    const message = `the client's thread ${this.#isUp ? "failed" : "can't be started"}: ${reason}`
    return new StorageError(message, cause === undefined ? undefined : { cause })
  }
}

/** The numbers of all threads of the process; empty where the system does not say. */
function threadNumbers(): string[] {
  try {
    return readdirSync("/proc/self/task")
  } catch {
    return []
  }
}
