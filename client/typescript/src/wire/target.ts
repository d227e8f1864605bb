// Which daemon a client talks to, how it gets in, and how long and how much it waits.

import type { CurveKeys } from "./keys.js"
import { env } from "node:process"
import { pathToFileURL } from "node:url"

import { ENDPOINT_VARIABLE, resolveBase, socketPathOf } from "./endpoint.js"

export const TIMEOUT_DEFAULT_MS = 30_000
export const MAX_OUTSTANDING_DEFAULT = 100_000
export const MAX_OUTSTANDING_BYTES_DEFAULT = 268_435_456

/** What a connection is made for. */
export interface Target {
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

/** Returns the endpoint: the argument, else PERSTACK_STORED_ENDPOINT, else the socket of the base. */
export function resolveEndpoint(endpoint?: string, basePath?: string): Pick<Target, "endpoint" | "base"> {
  const chosen = endpoint || env[ENDPOINT_VARIABLE]
  if (chosen) return { endpoint: chosen, base: undefined }
  const base = resolveBase(basePath)
  return { endpoint: `ipc://${socketPathOf(base)}`, base }
}
