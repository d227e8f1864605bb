// Stores that are not awaited one by one, and their positions.

import type { StoreOp } from "../core/batch.js"
import { Refused, StorageError } from "../core/errors.js"
import type { CheckpointFields, JobFields, RunEventFields, RunSettingFields } from "../core/shapes.js"

/** What of `DaemonStorage` a pipeline needs. */
interface Stores {
  store(op: StoreOp, value: object): Promise<number>
}

/**
 * Made by `DaemonStorage.pipeline`. Its stores return at once and are stored in the order of the calls; `flush` waits
 * for them, and is where their errors come up.
 */
export class Pipeline {
  /** The position of each store, in the order of the calls; undefined while it has none, and where it failed. */
  readonly positions: (number | undefined)[] = []
  /** Each refusal, and the index of its store in `positions`. */
  readonly refusals: { index: number; error: Refused }[] = []
  readonly #storage: Stores
  readonly #underWay = new Set<Promise<void>>()
  #error: StorageError | undefined

  constructor(storage: Stores) {
    this.#storage = storage
  }

  storeJob(job: JobFields): void {
    this.#store("storeJob", job)
  }

  storeCheckpoint(checkpoint: CheckpointFields): void {
    this.#store("storeCheckpoint", checkpoint)
  }

  storeEvent(event: RunEventFields): void {
    this.#store("storeEvent", event)
  }

  storeRunSetting(setting: RunSettingFields): void {
    this.#store("storeRunSetting", setting)
  }

  /**
   * Waits until every store called for so far is on disk or has failed; resolves to `positions`. Rejects with the first
   * error that it did not reject with before; the other stores were stored all the same.
   */
  async flush(): Promise<(number | undefined)[]> {
    await Promise.all(this.#underWay)
    const error = this.#error
    this.#error = undefined
    if (error !== undefined) throw error
    return this.positions
  }

  #store(op: StoreOp, value: object): void {
    const index = this.positions.push(undefined) - 1
    const stored = this.#storage.store(op, value).then(
      (position) => {
        this.positions[index] = position
        this.#underWay.delete(stored)
      },
      (error: StorageError) => {
        if (error instanceof Refused) this.refusals.push({ index, error })
        this.#error ??= error
        this.#underWay.delete(stored)
      },
    )
    this.#underWay.add(stored)
  }
}
