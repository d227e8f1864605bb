// The one client of the module-level functions: made when first used, for the base as it is found then.

import type { StoreOp } from "../core/batch.js"
import { blamed, type Caller, callerOf, CALLERS_NOTED_MAX } from "../core/caller.js"
import { ProtocolError, revived, StorageError } from "../core/errors.js"
import { textOf, valueOf } from "../core/jsonio.js"
import type { ReadOp } from "../core/reads.js"
import type { Hello } from "../core/shapes.js"
import { WorkerThread } from "../thread.js"
import { resolveKeys } from "../wire/keys.js"
import {
  MAX_OUTSTANDING_BYTES_DEFAULT,
  MAX_OUTSTANDING_DEFAULT,
  MODULES,
  resolveEndpoint,
  type Target,
  TIMEOUT_DEFAULT_MS,
} from "../wire/target.js"
import type { WorkerAnswer, WorkerCall } from "../worker.js"

/** How long the end of the process is put off for what was not awaited. */
const EXIT_MS = 5_000
const DROP_MS = 1_000
/** More than the thread itself takes to give up: it answers unless it is gone. */
const GRACE_MS = 30_000

interface Waiter {
  resolve: (value: number | Uint8Array | undefined) => void
  reject: (error: Error) => void
  caller: Caller | undefined
}

/** A call without its id; `Omit` would lose which fields go together. */
type Call = WorkerCall extends infer C ? (C extends WorkerCall ? Omit<C, "id"> : never) : never

/**
 * A thread with one connection, and calls to it in both kinds. It keeps the process alive only while an
 * asynchronous call is unanswered.
 */
class DefaultClient {
  readonly #target: Target
  #started: WorkerThread | undefined
  readonly #waiters = new Map<number, Waiter>()
  #calls = 0
  #base: string | undefined
  #gone: StorageError | undefined

  constructor() {
    const found = resolveEndpoint()
    this.#target = {
      ...found,
      keys: resolveKeys(found.endpoints),
      timeoutMs: TIMEOUT_DEFAULT_MS,
      maxOutstanding: MAX_OUTSTANDING_DEFAULT,
      maxOutstandingBytes: MAX_OUTSTANDING_BYTES_DEFAULT,
      modules: MODULES,
    }
    this.#base = this.#target.base
  }

  /** The thread; it starts with the first call that needs it. Throws StorageError if none can be made. */
  get #thread(): WorkerThread {
    if (this.#started === undefined) {
      this.#started = new WorkerThread(
        this.#target,
        (answer) => this.#take(answer),
        (reason) => this.#end(reason),
      )
      process.once("exit", this.#leave)
    }
    return this.#started
  }

  /** The absolute base. Of an endpoint that was named, only the daemon knows it. */
  get base(): string {
    const base = (this.#base ??= (this.read("hello", {}) as Partial<Hello> | null)?.base)
    if (typeof base !== "string") throw new ProtocolError("an answer to hello that does not name the base")
    return base
  }

  /** Stores a value, and blocks until it is on disk. */
  store(op: StoreOp, value: object): void {
    this.#wait({ store: op, body: textOf(value) })
  }

  /** Stores a value; it and its place in the order are taken now. */
  async storeLater(op: StoreOp, value: object): Promise<void> {
    await this.#post({ store: op, body: textOf(value) })
  }

  /** Reads, and blocks until the answer is there. */
  read(op: ReadOp, args: object): unknown {
    return opened(this.#wait({ read: op, args: textOf(args) }))
  }

  /** Reads. */
  async readLater(op: ReadOp, args: object): Promise<unknown> {
    return opened(await this.#post({ read: op, args: textOf(args) }))
  }

  /** Lets what is under way come to its end, then ends the thread. */
  async close(): Promise<void> {
    if (this.#started === undefined) return
    await this.#post({ close: true })
    process.off("exit", this.#leave)
    await this.#thread.end()
  }

  /**
   * The process is about to end, by `process.exit` or an exception too: what was not awaited may still be stored.
   * zeromq, for tcp, aborts a process in which a thread ends while its socket is in use: it is closed in any case.
   */
  readonly #leave = (): void => {
    if (this.#gone !== undefined || this.#waiters.size === 0) return
    try {
      this.#thread.ask({ id: 0, close: true }, EXIT_MS)
    } catch {
      this.#drop()
    }
  }

  #drop(): void {
    try {
      this.#thread.ask({ id: 0, drop: true }, DROP_MS)
    } catch {
      // It is gone, or the process ends as it is.
    }
  }

  #wait(call: Call): number | Uint8Array | undefined {
    if (this.#gone !== undefined) throw this.#gone
    const answer = this.#ask(call, TIMEOUT_DEFAULT_MS + GRACE_MS)
    if (answer.error !== undefined) throw revived(answer.error)
    return answer.value
  }

  #ask(call: Call, milliseconds: number): WorkerAnswer {
    const thread = this.#thread
    try {
      return thread.ask({ ...call, id: 0 }, milliseconds)
    } catch (error) {
      this.#end(error as StorageError)
      thread.abandon() // what came later would be taken for the answer to another call
      throw error
    }
  }

  #post(call: Call): Promise<number | Uint8Array | undefined> {
    const caller = this.#waiters.size < CALLERS_NOTED_MAX ? callerOf(this.#post) : undefined
    return new Promise((resolve, reject) => {
      if (this.#gone !== undefined) throw this.#gone
      const id = ++this.#calls
      const thread = this.#thread
      if (this.#waiters.size === 0) thread.holds(true)
      this.#waiters.set(id, { resolve, reject, caller })
      thread.post({ ...call, id })
    })
  }

  #take({ id, value, error }: WorkerAnswer): void {
    const waiter = this.#waiters.get(id)
    this.#waiters.delete(id)
    if (this.#waiters.size === 0) this.#thread.holds(false)
    if (error === undefined) waiter?.resolve(value)
    else waiter?.reject(blamed(revived(error), waiter.caller))
  }

  /** Whether no call can succeed any more. */
  get isGone(): boolean {
    return this.#gone !== undefined
  }

  /** The thread is no more. */
  #end(reason: StorageError): void {
    this.#gone ??= reason
    process.off("exit", this.#leave)
    for (const { reject } of this.#waiters.values()) reject(this.#gone)
    this.#waiters.clear()
  }
}

function opened(body: number | Uint8Array | undefined): unknown {
  if (!(body instanceof Uint8Array)) throw new StorageError("a read was answered without a body")
  return valueOf(Buffer.from(body.buffer, body.byteOffset, body.byteLength))
}

let client: DefaultClient | undefined

/**
 * Returns the client of the module-level functions. PERSTACK_STORED_ENDPOINT, PERSTACK_STORED_BASE and the
 * current directory are looked at when it is first needed, and again after `closeSharedClient`, or where the thread
 * could not be started or ended.
 */
export function defaultClient(): DefaultClient {
  if (client === undefined || client.isGone) client = new DefaultClient()
  return client
}

/** Lets what is under way come to its end and closes the client; the next call makes a new one. */
export async function closeSharedClient(): Promise<void> {
  const closing = client
  client = undefined
  await closing?.close()
}
