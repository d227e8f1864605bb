// One request that stores nothing, until its answer is complete: parts of large answers, retries, deadline.
// No sockets and no clocks: the time comes in as `now`, in milliseconds of a steady clock.

import { messageOf, ProtocolError, refused, type StorageError, type WireError } from "./errors.js"
import * as frames from "./frames.js"
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, PATIENCE_MAX_MS, PATIENCE_MIN_MS } from "./patience.js"

export type ReadOp =
  | "retrieveJob"
  | "getAllJobs"
  | "retrieveCheckpoint"
  | "getCheckpointsByJobId"
  | "getEventsByRun"
  | "getEventContents"
  | "getAllRuns"
  | "readAll"
  | "listJobs"
  | "listRuns"
  | "getEvent"
  | "positionAt"
  | "deletions"
  | "sizeOf"
  | "setCursor"
  | "deleteCursor"
  | "cursors"
  | "hello"
  | "ping"
  | "stats"

/** What a listing may have at most. A daemon that never comes to an end must not fill the memory. */
export const ANSWER_BYTES_MAX = 1 << 30
/** The same for what a daemon says of itself. */
const STATE_BYTES_MAX = 1 << 24
/** These tell of the daemon, not of what is stored. */
export const STATES: ReadonlySet<string> = new Set(["hello", "ping", "stats"])
const VALUES: ReadonlySet<string> = new Set(["retrieveJob", "retrieveCheckpoint", "getEvent"])
const MORE_CHARS_MAX = 4096

/** The state of a request that may be sent any number of times. */
export class Read {
  done = false
  /** Of the last try. */
  error: WireError | undefined
  /** Why the answer can't be used. */
  failure: StorageError | undefined
  position: number | undefined
  next: unknown
  /** Of `readAll`, where the daemon chose the position. */
  begunAfter: number | undefined
  /** The position that the answer is as of. */
  asOf: number | undefined
  /** Of `next`, and of all else where there are no `epochs`. */
  epoch: string | undefined
  epochs: unknown
  readonly op: ReadOp
  deadline: number
  /** Number of the client's own stores that it must see: it begins when they are finished. */
  after = 0
  /** When it could have been sent first. */
  askedAt = Infinity
  /** The position that the daemon must have come to. */
  atLeast: number | undefined
  /** So much longer than usual the daemon may take to answer. */
  readonly waitMs: number
  readonly #arguments: string
  readonly #session: string | undefined
  #more: string | undefined
  #pieces: Buffer[] = []
  #bytes = 0
  #id: number | undefined
  #sendAt: number | undefined = 0 // undefined: sent, the answer is waited for
  #sentAt = 0
  #patienceMs = PATIENCE_MIN_MS
  #backoffMs = BACKOFF_MIN_MS

  constructor(op: ReadOp, args: string, deadline: number, options: { waitMs?: number; session?: string } = {}) {
    this.op = op
    this.deadline = deadline
    this.waitMs = options.waitMs ?? 0
    this.#arguments = args
    this.#session = options.session
  }

  /** The complete body of the answer. */
  get body(): Buffer {
    const [first] = this.#pieces
    return first !== undefined && this.#pieces.length === 1 ? first : Buffer.concat(this.#pieces)
  }

  /** Whether it is to be sent now. */
  ready(now: number): boolean {
    return this.#sendAt !== undefined && now >= this.#sendAt
  }

  /** Returns the request for the answer, or for the next part of it. */
  frame(id: number, now: number): Buffer {
    const timeoutMs = STATES.has(this.op) ? undefined : Math.max(1, Math.trunc(this.deadline - now))
    if (this.#more !== undefined) return frames.request("readPart", id, this.#more, { timeoutMs })
    return frames.request(this.op, id, this.#arguments, { timeoutMs, session: this.#session, atLeast: this.atLeast })
  }

  /** Notes that the socket took the request. */
  sent(id: number, now: number): void {
    this.#id = id
    this.#sentAt = now
    this.#sendAt = undefined
    this.error = undefined
  }

  /** The request waits to be sent again, on a new connection. */
  disconnected(): void {
    this.#id = undefined
    this.#sendAt ??= 0
  }

  /** Takes an answer; returns whether it was to this request. */
  answered(answer: frames.Answer, now: number, valueBytesMax: number): boolean {
    if (answer.header.id !== this.#id) return false
    this.#id = undefined
    this.#patienceMs = PATIENCE_MIN_MS
    this.error = answer.error
    if (this.error === undefined) this.#take(answer, valueBytesMax)
    else if (this.error.retryable) this.#retry(this.error, now)
    else this.done = true
    return true
  }

  #take({ header, body }: frames.Answer, valueBytesMax: number): void {
    const { more } = header
    this.#bytes += body.length
    const most = STATES.has(this.op) ? STATE_BYTES_MAX : VALUES.has(this.op) ? valueBytesMax : ANSWER_BYTES_MAX
    if (this.#bytes > most) return this.#fail(`of more than ${most} bytes; page() reads a long listing in pieces`)
    this.#pieces.push(body)
    if (Number.isSafeInteger(header.position)) this.position ??= header.position
    if (header.next !== undefined) this.next = header.next
    if (Number.isSafeInteger(header.after)) this.begunAfter = header.after
    if (Number.isSafeInteger(header.asOf)) this.asOf = header.asOf
    if (typeof header.epoch === "string") this.epoch = header.epoch
    if (header.epochs !== undefined) this.epochs = header.epochs
    if (more === undefined) {
      this.done = true
      return
    }
    try {
      this.#more = JSON.stringify(more)
    } catch (error) {
      return this.#fail(`whose rest can't be asked for: ${messageOf(error)}`)
    }
    if (this.#more.length > MORE_CHARS_MAX) this.#fail("whose rest can't be asked for")
    else this.#sendAt = 0
  }

  #fail(reason: string): void {
    this.failure = new ProtocolError(`an answer to ${this.op} ${reason}`)
    this.#pieces = []
    this.done = true
  }

  #retry(error: WireError, now: number): void {
    if (error.code === "READ_GONE") {
      this.#more = undefined
      this.#pieces = []
      this.#bytes = 0
      this.position = undefined
      this.next = undefined
      this.begunAfter = undefined
      this.asOf = undefined
      this.epoch = undefined
      this.epochs = undefined
    }
    this.#sendAt = now + Math.max(this.#backoffMs, error.retryAfterMs ?? 0)
    this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS)
  }

  /** Returns when something has to be done although nothing came in. */
  due(): number {
    if (this.done) return Infinity
    return this.#sendAt ?? this.#sentAt + this.#patienceMs + this.waitMs
  }

  /** Whether an answer is overdue; if so, the next one is waited for twice as long. */
  silent(now: number): boolean {
    if (this.done || this.#sendAt !== undefined || now < this.due()) return false
    this.#patienceMs = Math.min(this.#patienceMs * 2, PATIENCE_MAX_MS)
    return true
  }
}

/**
 * Returns a request with its answer; throws Refused if the daemon did not carry it out, ProtocolError if it has not
 * looked at `asOf`.
 */
export function checked(read: Read, args: { asOf?: unknown } = {}): Read {
  if (read.error !== undefined) throw refused(read.op, read.error)
  if (args.asOf !== undefined && read.asOf === undefined) throw new ProtocolError("the daemon is older: it has no asOf")
  return read
}
