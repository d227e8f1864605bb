// ZMTP over a Unix socket, as libzmq's DEALER speaks it to the daemon's ROUTER, without libzmq: no second thread, no
// native part, and the end of a connection is noticed when it comes.

import { messageOf, EndpointError, ProtocolError } from "../core/errors.js"
import { type Arrived, command, message, OPENING, ZmtpReader } from "../core/zmtp_frames.js"
import { connect, type Socket } from "node:net"

import type { Place, Wire, WireEvents } from "./wire.js"

const RETRY_MIN_MS = 20
const RETRY_MAX_MS = 100
const SUN_PATH_BYTES_MAX = 107
/** These say only that there is no daemon at the moment. */
const NOBODY: ReadonlySet<string | undefined> = new Set(["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE", "EAGAIN"])

/** A connection to a Unix socket; it takes frames when the other side has said that it is ready. */
export class ZmtpWire implements Wire {
  ready = false
  trouble = ""
  readonly #path: string
  readonly #events: WireEvents
  readonly #once: boolean
  #socket: Socket | undefined
  #reader = new ZmtpReader()
  #opening: Buffer | undefined
  #retry: NodeJS.Timeout | undefined
  #retryMs = RETRY_MIN_MS
  #awaited = false
  #closed = false

  /** `path` is that of a socket, or an abstract one that begins with a NUL. Throws EndpointError if none can be. */
  constructor(path: string, events: WireEvents, { delayMs, once }: Omit<Place, "endpoint">) {
    if (path === "" || path.indexOf("\0", 1) > 0 || Buffer.byteLength(path) > SUN_PATH_BYTES_MAX) {
      throw new EndpointError(`no socket can be connected to ipc://${path}: it is no path of a Unix socket`)
    }
    this.#path = path
    this.#events = events
    this.#once = once
    if (delayMs === 0) this.#connect()
    else this.#connectIn(delayMs)
  }

  open(frame: Buffer): void {
    this.#opening = frame
    this.expect()
  }

  send(frame: Buffer): void {
    const socket = this.#socket
    const [head, rest] = message(frame)
    if (socket === undefined || head === undefined) return
    if (rest === undefined) {
      socket.write(head)
      return
    }
    socket.cork()
    socket.write(head)
    socket.write(rest)
    socket.uncork()
  }

  expect(): void {
    if (this.#awaited) return
    this.#awaited = true
    this.#socket?.ref()
    this.#retry?.ref()
  }

  rest(): boolean {
    if (!this.ready) return false
    this.#awaited = false
    this.#socket?.unref()
    return true
  }

  close(): void {
    this.#closed = true
    this.ready = false
    clearTimeout(this.#retry)
    this.#socket?.destroy()
  }

  #connectIn(milliseconds: number): void {
    this.#retry = setTimeout(() => this.#connect(), milliseconds)
    if (!this.#awaited) this.#retry.unref()
  }

  #connect(): void {
    this.#retry = undefined
    this.#reader = new ZmtpReader()
    const socket = connect({ path: this.#path })
    this.#socket = socket
    if (!this.#awaited) socket.unref()
    socket.on("connect", () => socket.write(OPENING))
    socket.on("data", (chunk: Buffer) => this.#take(chunk))
    socket.on("error", (error: NodeJS.ErrnoException) => (this.trouble = NOBODY.has(error.code) ? "" : error.message))
    socket.on("end", () => socket.destroy()) // half a connection is none
    socket.on("close", () => this.#ended())
  }

  #ended(): void {
    if (this.#closed) return
    if (this.ready || this.#once) {
      this.close()
      this.#events.lost()
      return
    }
    // Nobody listens there, or a daemon ended or refused the connection before it was finished.
    this.#connectIn(this.#retryMs)
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS)
  }

  #take(chunk: Buffer): void {
    if (this.#closed) return
    let arrived: Arrived[]
    try {
      arrived = this.#reader.take(chunk)
    } catch (error) {
      this.close()
      this.#events.failed(error instanceof ProtocolError ? error : new ProtocolError(messageOf(error)))
      return
    }
    const frames: Buffer[] = []
    for (const { command, body } of arrived) {
      if (command === undefined) frames.push(body)
      else this.#follow(command, body)
    }
    if (frames.length > 0 && !this.#closed) this.#events.frames(frames)
  }

  #follow(name: string, data: Buffer): void {
    if (name === "READY" && !this.ready) {
      this.ready = true
      const frame = this.#opening
      this.#opening = undefined
      if (frame === undefined) return
      this.send(frame)
      this.#events.opened()
    } else if (name === "ERROR") {
      this.#socket?.destroy()
    } else if (name === "PING") {
      this.#socket?.write(command("PONG", data.subarray(2))) // without its time to live
    }
  }
}
