// Where the daemon is found: the base folder and the endpoint that client and daemon derive alike.

import { createHash } from "node:crypto"
import { readlinkSync, realpathSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { env } from "node:process"

import { EndpointError } from "../core/errors.js"

export const BASE_VARIABLE = "PERSTACK_STORED_BASE"
/** Where `perstack log` looks for the base. */
const PERSTACK_BASE_VARIABLE = "PERSTACK_STORAGE_PATH"
export const ENDPOINT_VARIABLE = "PERSTACK_STORED_ENDPOINT"
const BASE_DEFAULT = "./perstack"
/** The most that sockaddr_un takes on Linux beside the closing NUL. */
const SOCKET_PATH_BYTES_MAX = 107
const LINKS_MAX = 40

/**
 * Returns the base folder: the argument, else PERSTACK_STORED_BASE, PERSTACK_STORAGE_PATH, ./perstack.
 *
 * It need not exist. The answer is absolute, with symbolic links resolved.
 */
export function resolveBase(basePath?: string): string {
  return realPath(resolve(basePath || env[BASE_VARIABLE] || env[PERSTACK_BASE_VARIABLE] || BASE_DEFAULT), LINKS_MAX)
}

/** Resolves links in the part of a path that exists, also those that lead to nothing yet. */
function realPath(path: string, links: number): string {
  try {
    return realpathSync(path)
  } catch {
    const parent = dirname(path)
    if (parent === path || links === 0) return path
    const here = join(realPath(parent, links), basename(path))
    const target = linkTarget(here)
    return target === undefined ? here : realPath(resolve(dirname(here), target), links - 1)
  }
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** Returns the path of the Unix socket of a base, as `resolveBase` gives it; throws EndpointError. */
export function socketPathOf(base: string): string {
  const path = join(base, ".stored", "stored.sock")
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return path
  const runtime = env["XDG_RUNTIME_DIR"]
  // Never /tmp: where anyone may write, anyone may put a socket of that name first.
  if (!runtime) throw tooLong(path, "and XDG_RUNTIME_DIR is not set")
  const digest = createHash("sha256").update(base).digest("hex").slice(0, 16)
  const short = join(runtime, `perstack-stored-${digest}.sock`)
  if (Buffer.byteLength(short) > SOCKET_PATH_BYTES_MAX) throw tooLong(path, `and so is ${short}`)
  return short
}

function tooLong(path: string, reason: string): EndpointError {
  return new EndpointError(
    `${path} is longer than the ${SOCKET_PATH_BYTES_MAX} bytes that a Unix socket may have, ${reason}; ` +
      `give an endpoint (argument or ${ENDPOINT_VARIABLE}) to client and daemon alike`,
  )
}
