// The bytes of ZMTP 3.1 without security: greeting, commands, frames. No I/O.

import { ProtocolError } from "./errors.js"
import { ANSWER_FRAME_BYTES_MAX } from "./frames.js"

const GREETING_BYTES = 64
const LONG = 2
const COMMAND = 4
const SHORT_MAX = 255
/** Up to here a copy is cheaper than a second buffer to write. */
const JOIN_MAX = 16_384
const EMPTY = Buffer.alloc(0)

function greeting(): Buffer {
  const bytes = Buffer.alloc(GREETING_BYTES)
  bytes[0] = 0xff
  bytes[9] = 0x7f
  bytes[10] = 3
  bytes[11] = 1
  bytes.write("NULL", 12, "latin1")
  return bytes
}

/** Returns a command, framed; at most 255 bytes with its name. */
export function command(name: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from([name.length]), Buffer.from(name, "latin1"), data])
  return Buffer.concat([Buffer.from([COMMAND, body.length]), body])
}

function property(name: string, value: string): Buffer {
  const size = Buffer.alloc(4)
  size.writeUInt32BE(value.length)
  return Buffer.concat([Buffer.from([name.length]), Buffer.from(name, "latin1"), size, Buffer.from(value, "latin1")])
}

/** What a client says first: it is a DEALER without a name. */
export const OPENING = Buffer.concat([
  greeting(),
  command("READY", Buffer.concat([property("Socket-Type", "DEALER"), property("Identity", "")])),
])

/** Returns what to write for a message of one frame: one piece, or two where a copy would cost more. */
export function message(frame: Buffer): Buffer[] {
  const size = frame.length
  const head = size <= SHORT_MAX ? Buffer.from([0, size]) : Buffer.alloc(9)
  if (size > SHORT_MAX) {
    head[0] = LONG
    head.writeBigUInt64BE(BigInt(size), 1)
  }
  return size <= JOIN_MAX ? [Buffer.concat([head, frame])] : [head, frame]
}

/** A frame that arrived. */
export interface Arrived {
  /** Undefined for a message. */
  command: string | undefined
  /** Of a message, or the data of a command. */
  body: Buffer
}

/** Takes the bytes of the other side as they arrive, in any pieces, and gives complete frames. */
export class ZmtpReader {
  #pieces: Buffer[] = []
  #bytes = 0
  /** Count of bytes that the next step needs. */
  #wanted = GREETING_BYTES
  #greeted = false

  /** Returns the frames that are complete now; throws ProtocolError where the other side speaks no ZMTP 3. */
  take(chunk: Buffer): Arrived[] {
    if (!this.#greeted && this.#bytes === 0 && chunk[0] !== 0xff) {
      throw new ProtocolError("what listens there does not speak ZeroMQ")
    }
    this.#pieces.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes < this.#wanted) return [] // a large frame is put together once, when all of it is there
    const [first] = this.#pieces
    let rest = this.#pieces.length === 1 && first !== undefined ? first : Buffer.concat(this.#pieces, this.#bytes)
    const arrived: Arrived[] = []
    if (!this.#greeted) {
      checkGreeting(rest)
      this.#greeted = true
      rest = rest.subarray(GREETING_BYTES)
    }
    for (;;) {
      const end = endOf(rest)
      this.#wanted = end.complete ? 0 : end.wanted
      if (!end.complete) break
      arrived.push(opened(rest, end.start, end.wanted))
      rest = rest.subarray(end.wanted)
    }
    this.#pieces = rest.length > 0 ? [rest] : []
    this.#bytes = rest.length
    return arrived
  }
}

function checkGreeting(bytes: Buffer): void {
  const version = bytes[10] ?? 0
  const mechanism = bytes.toString("latin1", 12, 32).replace(/\0+$/, "")
  if (((bytes[9] ?? 0) & 1) === 0 || version < 3 || mechanism !== "NULL") {
    throw new ProtocolError(`what listens there speaks ZMTP ${version} with mechanism ${JSON.stringify(mechanism)}`)
  }
}

/** Where the first frame's body starts, and how many bytes are wanted for it or for its head. */
function endOf(bytes: Buffer): { start: number; wanted: number; complete: boolean } {
  const flags = bytes[0] ?? 0
  const start = (flags & LONG) === 0 ? 2 : 9
  if (bytes.length < start) return { start, wanted: start, complete: false }
  const size = start === 2 ? (bytes[1] ?? 0) : Number(bytes.readBigUInt64BE(1))
  if (size > ANSWER_FRAME_BYTES_MAX) throw new ProtocolError(`a frame of ${size} bytes: another program listens there`)
  return { start, wanted: start + size, complete: bytes.length >= start + size }
}

function opened(bytes: Buffer, start: number, end: number): Arrived {
  const body = bytes.subarray(start, end)
  if (((bytes[0] ?? 0) & COMMAND) === 0) return { command: undefined, body }
  const nameEnd = 1 + (body[0] ?? 0)
  return { command: body.toString("latin1", 1, nameEnd), body: body.length > nameEnd ? body.subarray(nameEnd) : EMPTY }
}
