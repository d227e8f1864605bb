// The connection of a client: one socket and one session for all calls of a thread.

import { blamed, type Caller, callerOf, CALLERS_NOTED_MAX } from "../core/caller.js"
import {
  ClosedError,
  DaemonUnavailable,
  messageOf,
  OutcomeUnknown,
  refused,
  StorageError,
  TooMuchOutstanding,
} from "../core/errors.js"
import { ClientProtocol } from "../core/protocol.js"
import { Read, type ReadOp } from "../core/reads.js"
import type { Target } from "../wire/target.js"
import { openWire, type Wire } from "../wire/wire.js"
import { randomBytes } from "node:crypto"

import type { Batch, Outcome } from "../core/batch.js"
import { AllOrNone, type Condition, type FrameOp } from "../core/conditions.js"
import { Absence } from "./absence.js"
import { ListeningClock } from "./clock.js"

const RECONNECT_MIN_MS = 20
const RECONNECT_MAX_MS = 500
/** More reads wait here for their turn; those that wait for new records don't count. */
const READS_IN_FLIGHT_MAX = 32

/** These tell of the daemon, not of what is stored: they don't wait for the client's own stores. */
const STATES: ReadonlySet<string> = new Set(["hello", "ping", "stats"])

interface Waiter {
  resolve: (read: Read) => void
  reject: (error: Error) => void
  caller: Caller | undefined
}

/**
 * Stores and reads of one thread. Errors are those of `DaemonStorage`.
 *
 * Everything happens in `#turn`, which an answer, a timer or a call brings about. While nothing is
 * outstanding there is no timer and no operation of the socket, so that the process may end.
 */
export class Connection {
  readonly #target: Target
  readonly #protocol = new ClientProtocol(randomBytes(16).toString("hex"))
  readonly #clock: ListeningClock
  readonly #absence: Absence
  readonly #callersMax: number
  #wire: Wire | undefined
  /** The wire has not taken a frame yet: it is not connected at the moment. */
  #opening = false
  /** Of the last connection. */
  #trouble = ""
  /** Before the next connection; grows where connections end before anything is answered. */
  #delayMs = 0
  #turnDue = false
  #timer: NodeJS.Timeout | undefined
  #timerAt = Infinity
  #ticking = false
  #called = 0
  #finished = 0
  #outstandingBytes = 0
  /** Each waits until so many stores are finished; in order. */
  #flushes: { finished: number; resolve: () => void }[] = []
  readonly #waiters = new Map<Read, Waiter>()
  #readsHeld: Read[] = []
  #closing: (() => void)[] | undefined
  #closed = false

  /** Without `notesCallers` errors have stacks of their own: their callers are in another thread. */
  constructor(target: Target, notesCallers = true) {
    this.#target = target
    this.#callersMax = notesCallers ? CALLERS_NOTED_MAX : 0
    this.#clock = new ListeningClock(target.timeoutMs)
    this.#absence = new Absence(target)
  }

  /** The time that limits on the daemon's silence are measured in. */
  now(): number {
    return this.#clock.now()
  }

  /** Queues one value, or an atomic batch, of which the bytes are not to change any more; resolves to its position. */
  store(op: FrameOp, body: Uint8Array, condition?: Condition): Promise<number> {
    const caller = this.#called - this.#finished < this.#callersMax ? callerOf(this.store) : undefined
    return new Promise((resolve, reject) => {
      this.#checkOpen()
      this.#checkRoom()
      const all = condition instanceof AllOrNone ? condition : undefined
      this.#called += 1
      this.#outstandingBytes += body.length
      const settle = (outcome: Outcome | Error): void => {
        this.#finished += 1
        this.#outstandingBytes -= body.length
        if (typeof outcome === "number") resolve(outcome)
        else if (outcome instanceof Error) reject(blamed(outcome, caller))
        else reject(blamed(refused(all?.refusedOp(outcome) ?? op, outcome), caller))
      }
      const now = this.#clock.now()
      this.#protocol.backlog.append({ op, body, condition, calledAt: now, settle })
      this.#turnSoon() // not now: the calls of all tasks that are ready travel together
      if (this.#wire !== undefined && this.#protocol.stores.hasFullBatch) this.#send(now)
    })
  }

  /**
   * Sends a request that stores nothing; resolves to it with its complete answer.
   *
   * It begins when the stores that were called for before are finished, so that it sees them. With `waitMs` the daemon
   * may take so long longer than usual to answer.
   */
  call(op: ReadOp, args: string, waitMs = 0): Promise<Read> {
    const caller = this.#callersMax > 0 ? callerOf(this.call) : undefined
    return new Promise((resolve, reject) => {
      this.#checkOpen()
      const read = new Read(op, args, this.#clock.now() + this.#target.timeoutMs + waitMs, { waitMs })
      this.#waiters.set(read, { resolve, reject, caller })
      if (waitMs === 0 && !STATES.has(op)) read.after = this.#called
      if (waitMs > 0) this.#protocol.reads.add(read)
      else this.#readsHeld.push(read)
      this.#turnSoon()
    })
  }

  /** Waits until every store called for so far has its outcome: they come in the order of the calls. */
  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#flushes.push({ finished: this.#called, resolve })
      this.#endFlushes()
    })
  }

  #endFlushes(): void {
    while ((this.#flushes[0]?.finished ?? Infinity) <= this.#finished) this.#flushes.shift()?.resolve()
  }

  /** Lets what was called for come to its end, then closes the socket. Later calls fail; so do waiting ones. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#closed) return resolve()
      this.#closing ??= []
      this.#closing.push(resolve)
      for (const read of this.#waiters.keys()) {
        if (read.waitMs > 0) this.#endRead(read, new ClosedError("the client was closed"))
      }
      this.#turnSoon()
    })
  }

  /** Closes the socket at once; no promise is settled any more. For a thread that is about to end. */
  drop(): void {
    this.#closing ??= []
    this.#closed = true
    clearTimeout(this.#timer)
    this.#dropWire()
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new ClosedError("the client is closed")
  }

  #checkRoom(): void {
    const { maxOutstanding, maxOutstandingBytes } = this.#target
    const outstanding = this.#called - this.#finished
    if (outstanding >= maxOutstanding || this.#outstandingBytes >= maxOutstandingBytes) {
      throw new TooMuchOutstanding(
        `${outstanding} stores with ${this.#outstandingBytes} bytes are unanswered: await some of them first`,
      )
    }
  }

  #turnSoon(): void {
    if (this.#turnDue) return
    this.#turnDue = true
    queueMicrotask(() => {
      this.#turnDue = false
      this.#turn()
    })
  }

  /** Does what is due, sends what may go, and settles the calls that wait. A timer's turn holds limits, as of a time. */
  #turn(limitsAt?: number): void {
    if (this.#closed) return
    const now = this.#clock.now()
    try {
      if (limitsAt !== undefined) {
        if (this.#protocol.silent(limitsAt)) this.#dropWire()
        this.#giveUpOverdue(limitsAt)
      }
      this.#startReads()
      if (this.#mayConnect(now)) this.#send(now)
    } catch (error) {
      const failed = asStorageError(error)
      this.#failAll(() => failed)
    }
    this.#endFlushes()
    this.#rest()
    if (this.#opening) this.#absence.waits(now)
    this.#setTimer(now)
  }

  /** Whether there is a connection, or one may be tried. Where no daemon can be, everything fails. */
  #mayConnect(now: number): boolean {
    if (this.#wire !== undefined || (this.#protocol.idle && this.#readsHeld.length === 0)) return true
    const what = this.#absence.look(now)
    if (what === "never") {
      const { endpoint } = this.#target
      const message = `no daemon at ${endpoint}: there is no socket; a daemon is started with: ${this.#absence.command}`
      this.#failAll(() => new DaemonUnavailable(message))
    }
    return what === "try"
  }

  #giveUpOverdue(now: number): void {
    const { timeoutMs } = this.#target
    if (this.#protocol.givesUpAt(timeoutMs) <= now) {
      // With the socket goes what it has not delivered yet: a store given up must not arrive later.
      this.#dropWire()
      for (const batch of this.#protocol.abandon(now - timeoutMs)) batch.settle((gone) => this.#givenUp(gone))
    }
    for (const read of this.#waiters.keys()) {
      if (this.#deadlineOf(read) > now) continue
      this.#endRead(read, read.error === undefined ? this.#unavailable() : refused(read.op, read.error))
    }
  }

  #givenUp(batch: Batch): StorageError {
    const { endpoint, timeoutMs } = this.#target
    if (batch.error !== undefined) return refused(batch.stores[0]?.op ?? "store", batch.error)
    if (!batch.sentEver) return this.#unavailable()
    return new OutcomeUnknown(
      `a store was sent to ${endpoint} and not answered within ${timeoutMs / 1000} s: the outcome is unknown`,
    )
  }

  #unavailable(): DaemonUnavailable {
    const { endpoint, timeoutMs, keys } = this.#target
    const refused = keys === undefined ? "" : "the daemon's key is another one, or it does not let ours in; or "
    const trouble = this.#wire?.trouble ?? this.#trouble
    return new DaemonUnavailable(
      `no answer from ${endpoint} within ${timeoutMs / 1000} s${trouble && ` (${trouble})`}; ` +
        `${refused}a daemon is started with: ${this.#absence.command}`,
    )
  }

  #startReads(): void {
    const { reads } = this.#protocol
    let room = READS_IN_FLIGHT_MAX
    for (const read of reads) if (read.waitMs === 0) room -= 1
    this.#readsHeld = this.#readsHeld.filter((read) => {
      if (room <= 0 || read.after > this.#finished) return true
      room -= 1
      read.deadline = Math.max(read.deadline, this.#protocol.stores.progressAt + this.#target.timeoutMs)
      reads.add(read)
      return false
    })
  }

  /** When a read fails. While it waits for stores, and the daemon takes them, its time does not run. */
  #deadlineOf(read: Read): number {
    if (read.after <= this.#finished) return read.deadline
    return Math.max(read.deadline, this.#protocol.stores.progressAt + this.#target.timeoutMs)
  }

  #endRead(read: Read, error?: Error): void {
    const waiter = this.#waiters.get(read)
    this.#waiters.delete(read)
    if (!this.#protocol.reads.delete(read)) this.#readsHeld = this.#readsHeld.filter((held) => held !== read)
    if (error === undefined) waiter?.resolve(read)
    else waiter?.reject(blamed(error, waiter.caller))
  }

  /** Hands over every frame that may go now. */
  #send(now: number): void {
    const protocol = this.#protocol
    if (this.#opening || (this.#wire === undefined && protocol.idle)) return
    let wire = this.#wire ?? this.#connect()
    for (let frame = protocol.nextFrame(now); frame !== undefined; frame = protocol.nextFrame(now)) {
      if (!wire.ready && !protocol.offersHello) {
        // The connection is lost. A new one is there sooner than silence is noticed on this one.
        this.#dropWire()
        wire = this.#connect()
        continue
      }
      if (!wire.ready) {
        this.#opening = true
        wire.open(frame)
        return
      }
      if (protocol.offersHello) this.#absence.met()
      protocol.sent(now)
      wire.send(frame)
    }
    if (protocol.waiting) wire.expect()
  }

  #connect(): Wire {
    const wire: Wire = openWire(
      this.#target,
      {
        opened: () => {
          if (wire !== this.#wire) return
          this.#opening = false
          this.#absence.met()
          this.#protocol.sent(this.#clock.now())
          this.#turn()
        },
        frames: (frames) => {
          if (wire === this.#wire) this.#take(frames)
        },
        lost: () => {
          if (wire === this.#wire) this.#lost()
        },
        failed: (error) => {
          if (wire !== this.#wire) return
          const failed = asStorageError(error)
          this.#failAll(() => failed)
          this.#turnSoon()
        },
      },
      this.#delayMs,
    )
    this.#wire = wire
    return wire
  }

  #take(frames: Buffer[]): void {
    const now = this.#clock.now()
    this.#delayMs = 0
    try {
      for (const frame of frames) this.#protocol.receive(frame, now)
    } catch (error) {
      const failed = asStorageError(error)
      this.#failAll(() => failed)
    }
    for (const read of this.#protocol.reads) if (read.done) this.#endRead(read, read.failure)
    this.#turnSoon()
  }

  #lost(): void {
    this.#dropWire()
    this.#delayMs = Math.min(Math.max(2 * this.#delayMs, RECONNECT_MIN_MS), RECONNECT_MAX_MS)
    this.#turnSoon()
  }

  #failAll(reason: () => StorageError): void {
    this.#dropWire()
    for (const batch of this.#protocol.abandon(Infinity)) batch.settle(reason)
    for (const read of this.#waiters.keys()) this.#endRead(read, reason())
  }

  /** Leaves nothing under way that would keep the process alive when nothing is outstanding. */
  #rest(): void {
    if (!this.#protocol.idle || this.#readsHeld.length > 0) return
    this.#absence.rests()
    if (this.#wire?.rest() === false) this.#dropWire()
    if (this.#closing === undefined) return
    this.#closed = true
    this.#dropWire()
    for (const resolve of this.#closing) resolve()
  }

  #setTimer(now: number): void {
    const { timeoutMs } = this.#target
    let due = this.#protocol.givesUpAt(timeoutMs)
    for (const read of this.#waiters.keys()) due = Math.min(due, this.#deadlineOf(read))
    if (this.#wire !== undefined && !this.#opening && due < Infinity) due = Math.min(due, this.#protocol.due())
    if (due === Infinity) {
      clearTimeout(this.#timer)
      this.#timer = undefined
      this.#timerAt = Infinity
      this.#ticking = false
      return
    }
    if (!this.#ticking) this.#clock.tick(true)
    this.#ticking = true
    const tickAt = now + this.#clock.tickMs
    due = this.#clock.trusted ? Math.min(due, tickAt) : tickAt
    if (due < this.#timerAt) {
      // Later ones stay: it fires too early then, and is set again.
      clearTimeout(this.#timer)
      this.#timerAt = due
      this.#timer = setTimeout(() => this.#onTimer(), Math.max(Math.ceil(due - now), 1))
    }
  }

  #onTimer(): void {
    this.#timer = undefined
    this.#timerAt = Infinity
    this.#clock.tick()
    const limitsAt = this.#clock.trusted ? this.#clock.now() : undefined
    // Timers come before the sockets in a turn of the event loop: first what has arrived is taken.
    setImmediate(() => this.#turn(limitsAt))
  }

  #dropWire(): void {
    const wire = this.#wire
    if (wire === undefined) return
    this.#wire = undefined
    this.#trouble = wire.trouble
    this.#opening = false
    this.#protocol.disconnected()
    wire.close()
  }
}

function asStorageError(error: unknown): StorageError {
  return error instanceof StorageError ? error : new StorageError(`the client failed: ${messageOf(error)}`, { cause: error })
}
