// libzmq's socket, for tcp and CURVE. The npm package `zeromq` has it; it is needed for nothing else.

import { EndpointError, messageOf } from "../core/errors.js"
import { ANSWER_FRAME_BYTES_MAX } from "../core/frames.js"
import type { Target } from "./target.js"
import { createRequire } from "node:module"
import type { Dealer } from "zeromq"

import type { Wire, WireEvents } from "./wire.js"

const RECONNECT_MIN_MS = 20
const RECONNECT_MAX_MS = 500

/** A DEALER. It connects by itself, and again; so only silence tells that a connection is gone. */
export class ZmqWire implements Wire {
  readonly trouble = "" // libzmq keeps it for itself
  readonly #events: WireEvents
  readonly #socket: Dealer
  #opening = false
  #receiving = false
  #awaited = false
  #closed = false

  /** Throws EndpointError if it is no endpoint, or the package is missing. */
  constructor(target: Target, events: WireEvents) {
    this.#events = events
    this.#socket = dealer(target)
  }

  get ready(): boolean {
    return this.#socket.writable
  }

  open(frame: Buffer): void {
    this.#opening = true
    this.#socket.send(frame).then(
      () => {
        this.#opening = false
        if (!this.#closed) this.#events.opened()
      },
      () => this.#lost(),
    )
  }

  send(frame: Buffer): void {
    this.#socket.send(frame).catch(() => this.#lost()) // taken at once, or not at all
  }

  expect(): void {
    this.#awaited = true
    // Not beside a frame that waits for the connection: of two operations that wait, zeromq.js may wake one only.
    if (!this.#receiving && !this.#opening) void this.#receive()
  }

  rest(): boolean {
    this.#awaited = false
    return !this.#receiving && !this.#opening
  }

  close(): void {
    this.#closed = true
    this.#socket.close()
  }

  /** Takes answers as they arrive, as long as some are due. */
  async #receive(): Promise<void> {
    try {
      while (this.#awaited && !this.#closed) {
        this.#receiving = true
        const frames = await this.#socket.receive()
        this.#receiving = false
        if (!this.#closed) this.#events.frames(frames)
      }
    } catch {
      this.#lost()
    } finally {
      this.#receiving = false
    }
  }

  #lost(): void {
    if (this.#closed) return
    this.close()
    this.#events.lost()
  }
}

function dealer({ endpoint, keys, modules }: Target): Dealer {
  let socket: Dealer | undefined
  try {
    const zeromq = createRequire(modules)("zeromq") as typeof import("zeromq")
    socket = new zeromq.Dealer({
      linger: 0,
      // Frames go to a finished connection only. So what the socket took may have arrived, and what it did
      // not take has certainly not: that distinguishes DaemonUnavailable from OutcomeUnknown.
      immediate: true,
      sendHighWaterMark: 0, // the window and the reads under way bound both queues
      receiveHighWaterMark: 0,
      maxMessageSize: ANSWER_FRAME_BYTES_MAX,
      reconnectInterval: RECONNECT_MIN_MS,
      reconnectMaxInterval: RECONNECT_MAX_MS,
      ...(keys !== undefined && {
        curveServerKey: keys.serverKey,
        curvePublicKey: keys.publicKey,
        curveSecretKey: keys.secretKey,
      }),
    })
    socket.connect(endpoint)
  } catch (error) {
    socket?.close()
    if ((error as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND") {
      const message = `${endpoint} needs the npm package zeromq (npm install zeromq@6); an ipc endpoint needs none`
      throw new EndpointError(message, { cause: error })
    }
    throw new EndpointError(`no socket can be connected to ${endpoint}: ${messageOf(error)}`, { cause: error })
  }
  return socket
}
