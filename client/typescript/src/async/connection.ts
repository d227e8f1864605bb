// The connection of a client: one socket and one session for all calls of a thread.

import { blamed, callerOf, CALLERS_NOTED_MAX } from "../core/caller.js"
import { ClosedError, type DaemonUnavailable, EndpointError, OtherHistory, refused, StorageError } from "../core/errors.js"
import { SharedHistory } from "../core/history.js"
import { ClientProtocol } from "../core/protocol.js"
import { Read, type ReadOp, STATES } from "../core/reads.js"
import { Rotation } from "../core/rotation.js"
import type { Target } from "../wire/target.js"
import { openWire, type Wire } from "../wire/wire.js"
import { randomBytes } from "node:crypto"

import type { Outcome } from "../core/batch.js"
import { AllOrNone, type Condition, type FrameOp } from "../core/conditions.js"
import { Absence } from "./absence.js"
import { ListeningClock } from "./clock.js"
import { DueTimer } from "./due_timer.js"
import { asStorageError, givenUp, noAnswer, noAnswerOfAny, noSocket } from "./failures.js"
import { OutstandingStores } from "./outstanding.js"
import { WaitingReads } from "./waiting_reads.js"

const RECONNECT_MIN_MS = 20
const RECONNECT_MAX_MS = 500
/** After a daemon that must not be used, before the next one is tried. */
const PASSED_OVER_MS = 100

/**
 * Stores and reads of one thread. Errors are those of `DaemonStorage`.
 *
 * Everything happens in `#turn`, which an answer, a timer or a call brings about. While nothing is
 * outstanding there is no timer and no operation of the socket, so that the process may end.
 */
export class Connection {
  readonly #target: Target
  readonly #history: SharedHistory
  readonly #rotation: Rotation
  readonly #passedOver = new Map<string, string>()
  readonly #protocol: ClientProtocol
  readonly #clock: ListeningClock
  readonly #absence: Absence
  readonly #timer: DueTimer
  readonly #outstanding: OutstandingStores
  readonly #reads: WaitingReads
  readonly #callersMax: number
  #wire: Wire | undefined
  /** The wire has not taken a frame yet: it is not connected at the moment. */
  #opening = false
  /** Of the last connection. */
  #trouble = ""
  /** Before the next connection; grows where connections end before anything is answered. */
  #delayMs = 0
  #turnDue = false
  #closing: (() => void)[] | undefined
  #closed = false

  /** Without `notesCallers` errors have stacks of their own: their callers are in another thread. */
  constructor(target: Target, notesCallers = true) {
    this.#target = target
    this.#rotation = new Rotation(target.endpoints)
    this.#history = new SharedHistory(this.#rotation.several)
    this.#protocol = new ClientProtocol(randomBytes(16).toString("hex"), this.#history)
    this.#callersMax = notesCallers ? CALLERS_NOTED_MAX : 0
    this.#clock = new ListeningClock(target.timeoutMs)
    this.#absence = new Absence(target)
    this.#timer = new DueTimer(this.#clock, (limitsAt) => this.#turn(limitsAt))
    this.#outstanding = new OutstandingStores(target)
    this.#reads = new WaitingReads(this.#protocol, target.timeoutMs)
  }

  /** The time that limits on the daemon's silence are measured in. */
  now(): number {
    return this.#clock.now()
  }

  /** Queues one value, or an atomic batch, of which the bytes are not to change any more; resolves to its position. */
  store(op: FrameOp, body: Uint8Array, condition?: Condition): Promise<number> {
    const outstanding = this.#outstanding
    const caller = outstanding.called - outstanding.finished < this.#callersMax ? callerOf(this.store) : undefined
    return new Promise((resolve, reject) => {
      this.#checkOpen()
      outstanding.checkRoom()
      const all = condition instanceof AllOrNone ? condition : undefined
      outstanding.begin(body.length)
      const settle = (outcome: Outcome | Error): void => {
        outstanding.finish(body.length)
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
      // What tells of the daemon does not wait for the client's own stores.
      if (waitMs === 0 && !STATES.has(op)) read.after = this.#outstanding.called
      this.#reads.add(read, { resolve, reject, caller })
      this.#turnSoon()
    })
  }

  /** Waits until every store called for so far has its outcome: they come in the order of the calls. */
  flush(): Promise<void> {
    return this.#outstanding.flush()
  }

  /** Lets what was called for come to its end, then closes the socket. Later calls fail; so do waiting ones. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#closed) return resolve()
      this.#closing ??= []
      this.#closing.push(resolve)
      for (const read of this.#reads.all()) {
        if (read.waitMs > 0) this.#reads.end(read, new ClosedError("the client was closed"))
      }
      this.#turnSoon()
    })
  }

  /** Closes the socket at once; no promise is settled any more. For a thread that is about to end. */
  drop(): void {
    this.#closing ??= []
    this.#closed = true
    this.#timer.stop()
    this.#dropWire()
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new ClosedError("the client is closed")
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
        if (this.#protocol.silent(limitsAt) || limitsAt >= this.#staleAt) this.#move(limitsAt)
        this.#giveUpOverdue(limitsAt)
      }
      this.#reads.start(this.#outstanding.finished)
      if (this.#mayConnect(now)) this.#send(now)
    } catch (error) {
      const failed = asStorageError(error)
      this.#failAll(() => failed)
    }
    this.#outstanding.endFlushes()
    this.#rest()
    if (this.#opening) this.#absence.waits(now)
    this.#setTimer(now)
  }

  /** Whether there is a connection, or one may be tried. Where no daemon can be, everything fails. */
  #mayConnect(now: number): boolean {
    if (this.#wire !== undefined || (this.#protocol.idle && !this.#reads.held)) return true
    const what = this.#absence.look(now)
    if (what === "never") this.#failAll(() => noSocket(this.#target, this.#absence.command))
    return what === "try"
  }

  #giveUpOverdue(now: number): void {
    const { timeoutMs } = this.#target
    const unavailable = (): DaemonUnavailable =>
      this.#rotation.several
        ? noAnswerOfAny(this.#target, this.#passedOver)
        : noAnswer(this.#target, this.#wire?.trouble ?? this.#trouble, this.#absence.command)
    if (this.#protocol.givesUpAt(timeoutMs) <= now) {
      // With the socket goes what it has not delivered yet: a store given up must not arrive later.
      this.#dropWire()
      for (const batch of this.#protocol.abandon(now - timeoutMs)) {
        batch.settle((gone) => givenUp(gone, this.#target, this.#passedOver, unavailable))
      }
    }
    for (const read of this.#reads.overdue(now)) {
      this.#reads.end(read, read.error === undefined ? unavailable() : refused(read.op, read.error))
    }
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
    const { endpoint, several } = this.#rotation
    const wire: Wire = openWire(this.#target, { endpoint, delayMs: this.#delayMs, once: several }, {
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
    })
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
    const { problem } = this.#protocol
    if (problem !== undefined) this.#passOver(problem, now)
    this.#reads.finish(now)
    this.#turnSoon()
  }

  /** The daemon must not be used: everything fails, unless another one was met before. */
  #passOver(problem: StorageError, now: number): void {
    const { endpoint } = this.#rotation
    if (this.#history.store === "") {
      const Kind = problem instanceof OtherHistory ? OtherHistory : EndpointError
      this.#failAll(() => new Kind(`${endpoint} can't be used: ${problem.message}`))
      return
    }
    this.#passedOver.set(endpoint, problem.message)
    this.#move(now)
    this.#delayMs = PASSED_OVER_MS
  }

  /** When the daemon in use has had its time, where there are others. */
  get #staleAt(): number {
    return this.#rotation.several ? this.#rotation.staleAt(this.#protocol.waitsSince, this.#protocol.answeredAt) : Infinity
  }

  /** Ends the connection; where there are several daemons, the next one gets what is unanswered. */
  #move(now: number): void {
    this.#dropWire()
    if (this.#rotation.several) this.#rotation.move(now)
  }

  #lost(): void {
    this.#move(this.#clock.now())
    this.#delayMs = Math.min(Math.max(2 * this.#delayMs, RECONNECT_MIN_MS), RECONNECT_MAX_MS)
    this.#turnSoon()
  }

  #failAll(reason: () => StorageError): void {
    this.#dropWire()
    for (const batch of this.#protocol.abandon(Infinity)) batch.settle(reason)
    for (const read of this.#reads.all()) this.#reads.end(read, reason())
  }

  /** Leaves nothing under way that would keep the process alive when nothing is outstanding. */
  #rest(): void {
    if (!this.#protocol.idle || this.#reads.held) return
    this.#absence.rests()
    if (this.#wire?.rest() === false) this.#dropWire()
    if (this.#closing === undefined) return
    this.#closed = true
    this.#dropWire()
    for (const resolve of this.#closing) resolve()
  }

  #setTimer(now: number): void {
    const { timeoutMs } = this.#target
    let due = Math.min(this.#protocol.givesUpAt(timeoutMs), this.#reads.due, this.#staleAt)
    if (this.#wire !== undefined && !this.#opening && due < Infinity) due = Math.min(due, this.#protocol.due())
    this.#timer.set(now, due)
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
