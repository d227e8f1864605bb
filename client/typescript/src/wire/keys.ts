// CURVE keys of a client, for a daemon that is reached by tcp.

import { closeSync, openSync, readSync } from "node:fs"
import { env } from "node:process"

import { EndpointError, messageOf } from "../core/errors.js"

const SERVER_KEY_VARIABLE = "PERSTACK_STORED_SERVER_KEY"
const KEY_FILE_VARIABLE = "PERSTACK_STORED_KEY_FILE"
const FIELD = /^\s*(public-key|secret-key)\s*=\s*"([^"]{40})"\s*$/gm
const KEY_CHARS = 40
const FILE_BYTES_MAX = 65_536

/** What a client needs to be let in by tcp, in Z85; ipc needs none. */
export interface CurveKeys {
  /** The daemon's public key: no other daemon can pose as it. Of several endpoints, all daemons have this one. */
  serverKey: string
  /** The client's own, which has to stand in the daemon's list of clients. */
  publicKey: string
  secretKey: string
}

/**
 * Returns the keys for these endpoints: those given, else those that the environment names; none for ipc.
 *
 * Throws EndpointError if the environment names only one of the daemon's key and the client's file, a wrong key, or a
 * file that is no key file.
 */
export function resolveKeys(endpoints: readonly string[], given?: CurveKeys): CurveKeys | undefined {
  if (endpoints.every((one) => one.startsWith("ipc://"))) return undefined
  if (given !== undefined) return given
  const serverKey = env[SERVER_KEY_VARIABLE]
  const path = env[KEY_FILE_VARIABLE]
  if (!serverKey && !path) return undefined
  if (!serverKey || !path) throw new EndpointError(`${SERVER_KEY_VARIABLE} and ${KEY_FILE_VARIABLE} go together`)
  if (serverKey.length !== KEY_CHARS) {
    throw new EndpointError(`${SERVER_KEY_VARIABLE} must have ${KEY_CHARS} characters of Z85`)
  }
  return { serverKey, ...pairOf(path) }
}

/** The client's own pair, from a file that `perstack-stored keygen` made. */
function pairOf(path: string): Pick<CurveKeys, "publicKey" | "secretKey"> {
  const fields = new Map([...beginningOf(path).matchAll(FIELD)].map((found) => [found[1], found[2]]))
  const publicKey = fields.get("public-key")
  const secretKey = fields.get("secret-key")
  if (publicKey === undefined || secretKey === undefined) {
    throw new EndpointError(`${path} holds no CURVE key pair; \`perstack-stored keygen\` makes one`)
  }
  return { publicKey, secretKey }
}

function beginningOf(path: string): string {
  try {
    const file = openSync(path, "r")
    try {
      const bytes = Buffer.alloc(FILE_BYTES_MAX)
      return bytes.toString("utf8", 0, readSync(file, bytes))
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw new EndpointError(`can't read the key file ${path}: ${messageOf(error)}`)
  }
}
