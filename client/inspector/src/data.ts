// Where the page gets its data: from the gateway, or from the file that a job was exported to.

import type { Value } from "./values"

export type Record = { position: number; time: number; op: string; value: Value; cut?: boolean }
export type Page<T> = { position: number | null; next: string | null; items: T[] }
export type RecordPage = { next: number; end: boolean; items: Record[] }

export type Summary = {
  jobId: string
  runId?: string
  startedAt: number
  lastEventAt: number | null
  firstPosition?: number
  lastPosition: number
  expertKey: string | null
  status: string | null
  end: string | null
  usage: Value | null
  runs?: number
  records: { jobs?: number; runSettings: number; checkpoints: number; events: number }
  eventTypes: { [type: string]: number }
}

/** What the gateway answered, if it was an error; `code` is OFFLINE where it did not answer. */
export class ApiError extends Error {
  constructor(readonly code: string, message: string, readonly status = 0) {
    super(message)
  }
}

export type Exported = { job: string; records: Record[] }

function exportedJob(): Exported | null {
  const element = document.getElementById("job")
  return element?.textContent ? (JSON.parse(element.textContent) as Exported) : null
}

/** The job of this file, where the page is one; the data is dropped from the document. */
export const exported: Exported | null = exportedJob()

export async function text(path: string, signal?: AbortSignal): Promise<string> {
  if (exported) throw new ApiError("NOT_FOUND", "This file holds nothing but the records of its job.")
  let answer: Response
  try {
    answer = await fetch(path, { credentials: "same-origin", ...(signal ? { signal } : {}) })
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error
    throw new ApiError("OFFLINE", "The inspector does not answer. Is it still running?")
  }
  const body = await answer.text()
  if (!answer.ok) {
    let error: { code?: string; message?: string } = {}
    try {
      error = (JSON.parse(body) as { error: typeof error }).error
    } catch { /* no JSON: of a proxy */ }
    throw new ApiError(error.code ?? "BAD_ANSWER", error.message ?? `status ${answer.status}`, answer.status)
  }
  return body
}

export async function json<T>(path: string, signal?: AbortSignal): Promise<T> {
  return JSON.parse(await text(path, signal)) as T
}

/** The record at a position, from the file or the gateway. */
export async function recordAt(position: number, signal: AbortSignal): Promise<Record> {
  return exported?.records.find(record => record.position === position)
    ?? await json(path(["api", "records", String(position)]), signal)
}

/** A path of the gateway: parts are escaped, parameters without a value left out. */
export function path(parts: string[], query: { [name: string]: string | number | null | undefined } = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "")
  const search = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&")
  return `/${parts.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`
}

export const api = (parts: string[], query = {}): string => path(["api", ...parts], query)
