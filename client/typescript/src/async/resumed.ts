// A job that a program goes on with: its stores expect that nobody else stores for it.

import { AllOrNone, BATCH_OP, Fence, type StoreOp } from "../core/conditions.js"
import { textOf } from "../core/jsonio.js"
import type { CheckpointFields, Job, JobFields, RunEventFields, RunSettingFields } from "../core/shapes.js"

import type { Connection } from "./connection.js"
import { Pipeline } from "./pipeline.js"

/**
 * Made by `DaemonStorage.resume`; its stores reject with JobTakenOver once another session has stored for the job.
 * All stores of the storage count as its own.
 */
export class ResumedJob<T extends object = Job> {
  readonly #connection: Connection
  readonly #fence: Fence

  /** `job` is the job as it was read, undefined where none is stored under the id. */
  constructor(
    connection: Connection,
    readonly job: T | undefined,
    readonly jobId: string,
    readonly runId: string | undefined,
    position: number,
  ) {
    this.#connection = connection
    this.#fence = new Fence(jobId, runId, position)
  }

  /** After this position nobody else has stored for it, as far as was heard. */
  get position(): number {
    return this.#fence.position
  }

  async storeJob<V extends JobFields>(job: V): Promise<void> {
    await this.store("storeJob", job)
  }

  async storeCheckpoint<V extends CheckpointFields>(checkpoint: V): Promise<void> {
    await this.store("storeCheckpoint", checkpoint)
  }

  async storeEvent<V extends RunEventFields>(event: V): Promise<void> {
    await this.store("storeEvent", event)
  }

  async storeRunSetting<V extends RunSettingFields>(setting: V): Promise<void> {
    await this.store("storeRunSetting", setting)
  }

  /** Stores a value by the name of its operation; resolves to its position. */
  store(op: StoreOp, value: object): Promise<number> {
    try {
      return this.#connection.store(op, Buffer.from(textOf(value)), this.#fence)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** Stores several values all or none; see `DaemonStorage.storeAtomic`. */
  storeAtomic(stores: readonly (readonly [StoreOp, object])[]): Promise<number[]> {
    return storeAll(this.#connection, stores, this.#fence)
  }

  /** Returns something to store much with: its stores return at once, and it knows their positions. */
  pipeline(): Pipeline {
    return new Pipeline(this)
  }
}

/** Stores several values all or none; resolves to their positions. */
export async function storeAll(
  connection: Connection,
  stores: readonly (readonly [StoreOp, object])[],
  fence?: Fence,
): Promise<number[]> {
  const bodies = stores.map(([, value]) => Buffer.from(textOf(value)))
  if (bodies.length === 0) return []
  const all = new AllOrNone(
    stores.map(([op], i) => [op, bodies[i]?.length ?? 0]),
    fence,
  )
  const first = await connection.store(BATCH_OP, Buffer.concat(bodies), all)
  return bodies.map((_, i) => first + i)
}
