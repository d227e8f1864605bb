// The class: its life, and how it stores. What it reads is in `reads.ts`.

import type { StoreOp } from "../core/batch.js"
import { Alone, type DeleteOp } from "../core/conditions.js"
import { InvalidArgument, messageOf } from "../core/errors.js"
import { textOf } from "../core/jsonio.js"
import type { CheckpointFields, JobFields, RunEventFields, RunSettingFields } from "../core/shapes.js"
import { type CurveKeys, resolveKeys } from "../wire/keys.js"
import {
  MAX_OUTSTANDING_BYTES_DEFAULT,
  MAX_OUTSTANDING_DEFAULT,
  MODULES,
  resolveEndpoint,
  TIMEOUT_DEFAULT_MS,
} from "../wire/target.js"

import { Connection } from "./connection.js"
import { Pipeline } from "./pipeline.js"
import { Reads } from "./reads.js"
import { storeAll } from "./resumed.js"

/** How a storage is made; everything may be left out. */
export interface StorageOptions {
  /**
   * The daemon's, such as `ipc:///run/stored.sock`; else PERSTACK_STORED_ENDPOINT, else the socket of the base. Several,
   * in an array or with commas between them, for daemons that share a replicated journal: one is used at a time, and
   * the next one where it gets nowhere. Order and exactly-once hold over all.
   */
  endpoint?: string | readonly string[] | undefined
  /** The base; else PERSTACK_STORED_BASE, else ./perstack. */
  basePath?: string | undefined
  /**
   * For a daemon that is reached by tcp with CURVE; else what PERSTACK_STORED_SERVER_KEY (the daemon's public key) and
   * PERSTACK_STORED_KEY_FILE (a file of `perstack-stored keygen`) name. A daemon that does not let the key in never
   * answers.
   */
  keys?: CurveKeys | undefined
  /**
   * How long a read waits before it fails. Stores fail when none was answered for so long.
   * A restart of the daemon within it is ridden out.
   */
  timeoutMs?: number | undefined
  /** With this count of stores unanswered, the next one fails with TooMuchOutstanding. */
  maxOutstanding?: number | undefined
  /** The same with this count of bytes; the last store may exceed it. */
  maxOutstandingBytes?: number | undefined
  /**
   * With it `storeEvent` never rejects: its errors come here instead, and its promise resolves. For runtimes
   * that don't await events, where a rejection would end the process.
   */
  onError?: ((error: Error) => void) | undefined
}

/**
 * Perstack's `Storage`, through the daemon. It connects when first used, and keeps the process alive only
 * while something is outstanding.
 *
 * A store takes the value, and its place in the order, at the call, awaited or not; its promise resolves when
 * it is on disk. A read sees every store that was called for before through this storage, awaited or not, and those of
 * others that were acknowledged before. Every call may reject with
 * DaemonUnavailable, Refused or ClosedError; a store also with OutcomeUnknown, InvalidArgument or
 * TooMuchOutstanding. All of them are StorageErrors.
 */
export class DaemonStorage extends Reads {
  readonly endpoint: string
  readonly #connection: Connection
  readonly #onError: ((error: Error) => void) | undefined

  constructor(options: StorageOptions = {}) {
    const { endpoint, endpoints, base } = resolveEndpoint(options.endpoint, options.basePath)
    const timeoutMs = positive(options.timeoutMs ?? TIMEOUT_DEFAULT_MS, "timeoutMs")
    const connection = new Connection({
      endpoint,
      endpoints,
      base,
      keys: resolveKeys(endpoints, options.keys),
      timeoutMs,
      maxOutstanding: positive(options.maxOutstanding ?? MAX_OUTSTANDING_DEFAULT, "maxOutstanding"),
      maxOutstandingBytes: positive(
        options.maxOutstandingBytes ?? MAX_OUTSTANDING_BYTES_DEFAULT,
        "maxOutstandingBytes",
      ),
      modules: MODULES,
    })
    super(connection, timeoutMs)
    this.endpoint = endpoint
    this.#onError = options.onError
    this.#connection = connection
  }

  /** Stores a job; of one id the last one counts. */
  async storeJob<T extends JobFields>(job: T): Promise<void> {
    await this.store("storeJob", job)
  }

  /** Stores a checkpoint; of one id the last one counts. */
  async storeCheckpoint<T extends CheckpointFields>(checkpoint: T): Promise<void> {
    await this.store("storeCheckpoint", checkpoint)
  }

  /** Stores an event; the same one again, byte for byte, is kept once. See `onError`. */
  async storeEvent<T extends RunEventFields>(event: T): Promise<void> {
    const stored = this.store("storeEvent", event)
    await (this.#onError === undefined ? stored : stored.catch((error: Error) => this.#report(error)))
  }

  /** Stores the setting of a run; where there is one, only `updatedAt` changes. */
  async storeRunSetting<T extends RunSettingFields>(setting: T): Promise<void> {
    await this.store("storeRunSetting", setting)
  }

  /** Stores a value by the name of its operation; resolves to its position. It always rejects on failure. */
  store(op: StoreOp, value: object): Promise<number> {
    try {
      return this.#connection.store(op, Buffer.from(textOf(value)))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Stores several values all or none, across kinds; resolves to their positions, which follow each other.
   *
   * Where one is refused nothing is stored, and `Refused` has its `index`.
   */
  async storeAtomic(stores: readonly (readonly [StoreOp, object])[]): Promise<number[]> {
    return storeAll(this.#connection, stores)
  }

  /**
   * Deletes a job: all that was stored of it so far, in the order of the calls; resolves to the position.
   *
   * After it no read shows the job, by any client. Late stores of sessions that began before are refused as
   * Deleted, this storage's own too. The daemon must let this client delete, else it rejects with Forbidden.
   */
  deleteJob(jobId: string, why?: string): Promise<number> {
    return this.#delete("deleteJob", { jobId, why })
  }

  /** Deletes a run: its setting, checkpoints and events; the job and its other runs stay. */
  deleteRun(jobId: string, runId: string, why?: string): Promise<number> {
    return this.#delete("deleteRun", { jobId, runId, why })
  }

  /**
   * Puts a setting in the place of all that were stored of its run, which no read shows any more.
   *
   * For secrets that must go while the run stays: `setting` is the stored one without them, at most 256 KiB.
   */
  redactRunSetting<T extends RunSettingFields>(setting: T, why?: string): Promise<number> {
    return this.#delete("redactRunSetting", { jobId: setting.jobId, runId: setting.runId, why, setting })
  }

  /** Returns something to store much with: its stores return at once, and it knows their positions. */
  pipeline(): Pipeline {
    return new Pipeline(this)
  }

  /** Waits until every store called for so far is on disk or has failed; it rejects for none of them. */
  flush(): Promise<void> {
    return this.#connection.flush()
  }

  /**
   * Lets the calls under way come to their end, un-awaited stores too, then closes the connection.
   *
   * Later calls reject with ClosedError. It takes `timeoutMs` at most if the daemon is away, and never rejects.
   */
  close(): Promise<void> {
    return this.#connection.close()
  }

  #delete(op: DeleteOp, what: { jobId: string; runId?: string; why: string | undefined; setting?: object }): Promise<number> {
    try {
      return this.#connection.store(op, Buffer.from(textOf(what)), new Alone())
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #report(error: Error): void {
    try {
      // One that is asynchronous may reject.
      Promise.resolve(this.#onError?.(error) as unknown).catch(warn)
    } catch (problem) {
      warn(problem)
    }
  }
}

/** Returns a storage; nothing is connected yet. Throws EndpointError if no endpoint can be derived from the base. */
export function createStorage(options: StorageOptions = {}): DaemonStorage {
  return new DaemonStorage(options)
}

function positive(value: number, name: string): number {
  if (!(value > 0)) throw new InvalidArgument(`${name} must be positive`)
  return value
}

function warn(problem: unknown): void {
  process.emitWarning(`onError of perstack-storage-client failed: ${messageOf(problem)}`)
}
