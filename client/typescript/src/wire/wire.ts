// What carries frames to the daemon: ZMTP over a Unix socket, or libzmq's socket for all else.

import type { Target } from "./target.js"
import { ZmqWire } from "./zmq.js"
import { ZmtpWire } from "./zmtp.js"

const IPC = "ipc://"

/** What a wire tells its connection; each is called from the event loop. */
export interface WireEvents {
  /** The frame given to `open` was taken: the connection is finished. */
  opened(): void
  frames(frames: Buffer[]): void
  /** The connection is gone, or with `Place.once` not made. No other call follows. */
  lost(): void
  /** No connection is possible, and trying again is no use; or what arrived is no ZMTP. No other call follows. */
  failed(error: unknown): void
}

/** One connection, which is tried until it is finished. What it has taken may have arrived; all else has not. */
export interface Wire {
  /** Whether a frame is taken at once. */
  readonly ready: boolean
  /** Why there is no connection, where that is more than that nobody listens; else "". */
  readonly trouble: string
  /** Hands over the first frame as soon as the connection is finished. */
  open(frame: Buffer): void
  /** Hands over a frame; only where it is ready. */
  send(frame: Buffer): void
  /** Answers are due: the process stays alive for them. */
  expect(): void
  /** Nothing is due: the process may end. Returns false where the wire must be closed for that. */
  rest(): boolean
  close(): void
}

/** Where a wire leads, and how it is tried. */
export interface Place {
  endpoint: string
  /** Before the first try. */
  delayMs: number
  /** A try that fails is reported as `lost`: another daemon may be there. Else it is tried again. */
  once: boolean
}

/** Starts to connect. Throws EndpointError if it is no endpoint. */
export function openWire(target: Target, { endpoint, delayMs, once }: Place, events: WireEvents): Wire {
  if (!endpoint.startsWith(IPC)) return new ZmqWire({ ...target, endpoint }, events)
  const path = endpoint.slice(IPC.length)
  return new ZmtpWire(path.startsWith("@") ? `\0${path.slice(1)}` : path, events, { delayMs, once })
}
