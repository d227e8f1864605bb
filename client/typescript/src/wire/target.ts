// Which daemon a client talks to, how it gets in, and how long and how much it waits.

import { EndpointError } from "../core/errors.js"
import type { CurveKeys } from "./keys.js"
import { env } from "node:process"
import { pathToFileURL } from "node:url"

import { ENDPOINT_VARIABLE, resolveBase, socketPathOf } from "./endpoint.js"

export const TIMEOUT_DEFAULT_MS = 30_000
export const MAX_OUTSTANDING_DEFAULT = 100_000
export const MAX_OUTSTANDING_BYTES_DEFAULT = 268_435_456

/** What a connection is made for. */
export interface Target {
  /** Of the daemon, or of daemons that share a history. */
  endpoints: readonly string[]
  /** The same as one text. */
  endpoint: string
  /** The base, where the endpoint was derived from it. */
  base: string | undefined
  keys?: CurveKeys | undefined
  timeoutMs: number
  maxOutstanding: number
  maxOutstandingBytes: number
  /** Where modules are found that are loaded only when they are needed. */
  modules: string
}

/** For `Target.modules`. Bundlers that make CommonJS leave `import.meta` empty. */
export const MODULES = import.meta.url ?? pathToFileURL(__filename).href

/** Where the next endpoint begins in a text with several: a path may have commas. */
const SEPARATOR = /\s*,\s*(?=[a-z]+:\/\/)/

/**
 * Returns the endpoints: the argument, else PERSTACK_STORED_ENDPOINT, else the socket of the base. Several stand in an
 * array, or in one text with commas between them.
 */
export function resolveEndpoint(
  endpoint?: string | readonly string[],
  basePath?: string,
): Pick<Target, "endpoint" | "endpoints" | "base"> {
  if (Array.isArray(endpoint) && endpoint.length === 0) throw new EndpointError("an empty list of endpoints")
  const chosen = (endpoint?.length ? endpoint : undefined) ?? env[ENDPOINT_VARIABLE]
  if (!chosen) {
    const base = resolveBase(basePath)
    const derived = `ipc://${socketPathOf(base)}`
    return { endpoint: derived, endpoints: [derived], base }
  }
  const endpoints = (typeof chosen === "string" ? [chosen] : chosen).flatMap((text) => text.split(SEPARATOR))
  const text = endpoints.join()
  if (new Set(endpoints).size < endpoints.length) throw new EndpointError(`an endpoint stands twice in ${text}`)
  return { endpoint: text, endpoints, base: undefined }
}
