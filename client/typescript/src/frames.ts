// The bytes of requests and answers (`proto/wire.md`, sections 2 and 4); no state, no I/O.

import { ProtocolError, type WireError } from "./errors.js"

export const VERSION = 1
/** More than the header of a store of one value or of one part ever takes. */
export const HEADER_RESERVE_BYTES = 512

const LINE_FEED = 0x0a
const EMPTY = Buffer.alloc(0)

/** The header of an answer, as far as it was checked. */
export interface AnswerHeader {
  id: number
  ok: boolean
  position?: number
  count?: number
  results?: unknown
  part?: number
  more?: unknown
  next?: unknown
  epoch?: unknown
  epochs?: unknown
  error?: unknown
}

/** An answer of the daemon: its header, and its body byte for byte. */
export interface Answer {
  header: AnswerHeader
  body: Buffer
  /** What stands in `error`, where the request was not carried out. */
  error: WireError | undefined
}

/**
 * Returns the answer in a frame.
 *
 * Throws ProtocolError if the frame has no readable header, or if its request could not be read.
 */
export function parseAnswer(frame: Buffer): Answer {
  const end = frame.indexOf(LINE_FEED)
  const head = end < 0 ? frame : frame.subarray(0, end)
  let header: unknown
  try {
    header = JSON.parse(head.toString())
  } catch {
    header = undefined
  }
  if (!isObject(header) || typeof header["ok"] !== "boolean") {
    throw new ProtocolError(`an answer without a readable header: ${quote(frame)}`)
  }
  const error = header["ok"] ? undefined : errorOf(header["error"])
  if (typeof header["id"] !== "number") {
    throw new ProtocolError(`the daemon could not read a request: ${error?.message ?? quote(frame)}`)
  }
  return {
    header: header as unknown as AnswerHeader,
    body: end < 0 ? EMPTY : frame.subarray(end + 1),
    error,
  }
}

/** Returns what an error object of the wire says, whatever it is. */
export function errorOf(value: unknown): WireError {
  if (!isObject(value)) return { code: "INTERNAL", message: "an error without details" }
  const error: WireError = { code: String(value["code"] ?? "INTERNAL"), message: String(value["message"] ?? "") }
  if (typeof value["field"] === "string") error.field = value["field"]
  if (typeof value["retryable"] === "boolean") error.retryable = value["retryable"]
  if (typeof value["retryAfterMs"] === "number") error.retryAfterMs = value["retryAfterMs"]
  return error
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** Returns the frame of a request that stores nothing; `body` is a JSON object or empty. */
export function request(
  op: string,
  id: number,
  body: string,
  options: { timeoutMs?: number | undefined; session?: string | undefined } = {},
): Buffer {
  const session = options.session === undefined ? "" : `,"session":"${options.session}"`
  const timeout = options.timeoutMs === undefined ? "" : `,"timeoutMs":${options.timeoutMs}`
  return Buffer.from(`{"v":${VERSION},"op":"${op}","id":${id}${session}${timeout}}\n${body}`)
}

/** Which session a store belongs to, its number, and up to which number all are settled. */
export interface Place {
  session: string
  seq: number
  settled: number
}

/** Returns the frame of one store. */
export function storeRequest(op: string, id: number, place: Place, body: Uint8Array): Buffer {
  return frame(`"op":"${op}",${placed(id, place)}`, [body])
}

/** Returns the frame of a batch of stores: the first one has the number of `place`. */
export function batchRequest(id: number, place: Place, ops: readonly string[], bodies: readonly Uint8Array[]): Buffer {
  const items = bodies.map((body, i) => `["${ops[i]}",${body.length}]`)
  return frame(`"op":"store",${placed(id, place)},"items":[${items.join()}]`, bodies)
}

/** Returns the frame of a part of a value: number `part` of those of `partBytes` each. */
export function partRequest(
  op: string,
  id: number,
  place: Place,
  value: Uint8Array,
  part: number,
  partBytes: number,
): Buffer {
  const parts = Math.ceil(value.length / partBytes)
  const piece = value.subarray(part * partBytes, (part + 1) * partBytes)
  return frame(
    `"op":"${op}",${placed(id, place)},"part":${part},"parts":${parts},"bytes":${value.length}`,
    [piece],
  )
}

function placed(id: number, place: Place): string {
  return `"id":${id},"session":"${place.session}","seq":${place.seq},"settled":${place.settled}`
}

function frame(fields: string, bodies: readonly Uint8Array[]): Buffer {
  return Buffer.concat([Buffer.from(`{"v":${VERSION},${fields}}\n`), ...bodies])
}

function quote(bytes: Buffer): string {
  return JSON.stringify(bytes.subarray(0, 100).toString())
}

/** The bounds that a daemon grants; before `hello` is answered, what wire.md gives as usual. */
export class Limits {
  known = false
  windowRecords = 1024
  windowBytes = 16_777_216
  frameBytes = 16_777_216
  batchItems = 1024

  /** Takes over what the body of an answer to `hello` grants; throws ProtocolError if it grants nothing usable. */
  learn(hello: Buffer): void {
    let body: unknown
    try {
      body = JSON.parse(hello.toString())
    } catch {
      body = undefined
    }
    const window = isObject(body) && isObject(body["window"]) ? body["window"] : {}
    const limits = isObject(body) && isObject(body["limits"]) ? body["limits"] : {}
    this.windowRecords = bound(window["records"], "window.records")
    this.windowBytes = bound(window["bytes"], "window.bytes")
    this.frameBytes = bound(limits["frameBytes"], "limits.frameBytes")
    this.batchItems = bound(limits["batchItems"], "limits.batchItems")
  }
}

function bound(value: unknown, name: string): number {
  if (!Number.isSafeInteger(value) || (value as number) <= 0) {
    throw new ProtocolError(`an answer to hello that grants nothing usable: ${name} is ${String(value)}`)
  }
  return value as number
}
