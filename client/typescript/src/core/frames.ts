// The bytes of requests and answers (`proto/wire.md`, sections 2 and 4); no state, no I/O.

import { ProtocolError, type WireError } from "./errors.js"

export const VERSION = 1
/** More than the header of a store of one value or of one part ever takes. */
export const HEADER_RESERVE_BYTES = 2048

/** A daemon that grants more is not believed: the window bounds what a client holds in memory. */
const WINDOW_RECORDS_MAX = 1 << 20
const WINDOW_BYTES_MAX = 1 << 30
/** No daemon grants less, and a value would travel in very many parts. */
const FRAME_BYTES_MIN = 65_536
/** No answer of a daemon comes in larger frames. */
export const ANSWER_FRAME_BYTES_MAX = 1 << 28
const RETRY_AFTER_MAX_MS = 3_600_000
const SHOWN_CHARS_MAX = 300

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
  after?: number
  asOf?: number
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
    throw new ProtocolError(`the daemon could not read a request: ${error === undefined ? quote(frame) : shortened(error.message)}`)
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
  const { code, message, retryAfterMs, item, position } = value
  const error: WireError = {
    code: typeof code === "string" ? code : "INTERNAL",
    message: typeof message === "string" ? message : "",
  }
  if (typeof value["field"] === "string") error.field = value["field"]
  if (typeof value["retryable"] === "boolean") error.retryable = value["retryable"]
  if (typeof retryAfterMs === "number") error.retryAfterMs = Math.min(Math.max(retryAfterMs, 0), RETRY_AFTER_MAX_MS)
  if (Number.isSafeInteger(item)) error.item = item as number
  if (Number.isSafeInteger(position)) error.position = position as number
  return error
}

/** Returns the highest position in the header of an answer; 0 without one that is one. */
export function highestPosition({ position, count, results }: AnswerHeader): number {
  const found = [0]
  if (typeof position === "number") found.push(position + (typeof count === "number" ? count : 1) - 1)
  if (Array.isArray(results)) for (const result of results) if (typeof result === "number") found.push(result)
  const highest = Math.max(...found)
  return Number.isSafeInteger(highest) ? highest : 0
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** Returns the frame of a request that stores nothing; `body` is a JSON object or empty. */
export function request(
  op: string,
  id: number,
  body: string,
  options: { timeoutMs?: number | undefined; session?: string | undefined; atLeast?: number | undefined } = {},
): Buffer {
  const session = options.session === undefined ? "" : `,"session":"${options.session}"`
  const timeout = options.timeoutMs === undefined ? "" : `,"timeoutMs":${options.timeoutMs}`
  const least = options.atLeast === undefined ? "" : `,"atLeast":${options.atLeast}`
  return Buffer.from(`{"v":${VERSION},"op":"${op}","id":${id}${session}${timeout}${least}}\n${body}`)
}

/** Which session a store belongs to, its number, and up to which number all are settled. */
export interface Place {
  session: string
  seq: number
  settled: number
}

/** Returns the frame of one store, or of an atomic batch; `conditions` are fields of the header after commas. */
export function storeRequest(op: string, id: number, place: Place, body: Uint8Array, conditions = ""): Buffer {
  return frame(`"op":"${op}",${placed(id, place)}${conditions}`, [body])
}

/** Returns the frame of a batch of stores: the first one has the number of `place`. */
export function batchRequest(
  id: number,
  place: Place,
  ops: readonly string[],
  bodies: readonly Uint8Array[],
  conditions = "",
): Buffer {
  const items = bodies.map((body, i) => `["${ops[i]}",${body.length}]`)
  return frame(`"op":"store",${placed(id, place)},"items":[${items.join()}]${conditions}`, bodies)
}

/** Returns the frame of a part of a value: number `part` of those of `partBytes` each. */
export function partRequest(
  op: string,
  id: number,
  place: Place,
  value: Uint8Array,
  part: number,
  partBytes: number,
  conditions = "",
): Buffer {
  const parts = Math.ceil(value.length / partBytes)
  const piece = value.subarray(part * partBytes, (part + 1) * partBytes)
  return frame(
    `"op":"${op}",${placed(id, place)}${conditions},"part":${part},"parts":${parts},"bytes":${value.length}`,
    [piece],
  )
}

function placed(id: number, place: Place): string {
  return `"id":${id},"session":"${place.session}","seq":${place.seq},"settled":${place.settled}`
}

function frame(fields: string, bodies: readonly Uint8Array[]): Buffer {
  return Buffer.concat([Buffer.from(`{"v":${VERSION},${fields}}\n`), ...bodies])
}

/** Returns what a daemon said for an error's text: as much of it as a person reads. */
export function shortened(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value).slice(0, SHOWN_CHARS_MAX)
  const fields = Object.entries(value).map(([name, field]) => `${name}: ${typeof field === "object" ? "…" : String(field)}`)
  return fields.join(", ").slice(0, SHOWN_CHARS_MAX)
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
  valueBytes = 268_435_456
  /** The name of the daemon's history. */
  store = ""
  /** Whether it shares that with other daemons. */
  replicated = false
  /** What the daemon knows beyond the first version of the protocol. */
  features: ReadonlySet<string> = new Set()

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
    const features: unknown = isObject(body) ? body["features"] : undefined
    this.store = isObject(body) && typeof body["store"] === "string" ? body["store"] : ""
    this.replicated = isObject(body) && body["replicated"] === true
    this.features = new Set(Array.isArray(features) ? features.filter((one) => typeof one === "string") : [])
    this.windowRecords = Math.min(bound(window["records"], "window.records"), WINDOW_RECORDS_MAX)
    this.windowBytes = Math.min(bound(window["bytes"], "window.bytes"), WINDOW_BYTES_MAX)
    this.frameBytes = bound(limits["frameBytes"], "limits.frameBytes", FRAME_BYTES_MIN)
    this.batchItems = bound(limits["batchItems"], "limits.batchItems")
    this.valueBytes = bound(limits["valueBytes"] ?? this.valueBytes, "limits.valueBytes")
  }
}

function bound(value: unknown, name: string, least = 1): number {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw new ProtocolError(`an answer to hello that grants nothing usable: ${name} is ${shortened(value)}`)
  }
  return value as number
}
