// The functions of `@perstack/filesystem-storage` under their own names; each is synchronous or asynchronous as it is there.
// They all share one client, so their calls keep their order. What they throw is what the same call of
// `DaemonStorage` rejects with.

import type { RunEvent } from "../core/events.js"
import type {
  Checkpoint,
  CheckpointFields,
  EventMeta,
  Job,
  JobFields,
  RunEventFields,
  RunSetting,
  RunSettingFields,
} from "../core/shapes.js"
import { DEFAULT_FILE_SYSTEM, type FileSystem, type GetRunDirFn, writeSetting } from "./adapter.js"
import { defaultClient } from "./default.js"
import { defaultGetRunDir } from "./paths.js"

/** Returns a new job that starts now; it is not stored. Without `maxSteps` it has no such field. */
export function createInitialJob(jobId: string, expertKey: string, maxSteps?: number): Job {
  return {
    id: jobId,
    status: "running",
    coordinatorExpertKey: expertKey,
    totalSteps: 0,
    usage: { inputTokens: 0, outputTokens: 0, reasoningTokens: 0, totalTokens: 0, cachedInputTokens: 0 },
    startedAt: Date.now(),
    ...(maxSteps === undefined ? {} : { maxSteps }),
  }
}

/** Stores a job, and blocks until it is on disk; of one id the last one counts. */
export function storeJob<T extends JobFields>(job: T): void {
  defaultClient().store("storeJob", job)
}

/** Returns a job, or undefined where it is unknown. */
export function retrieveJob<T extends object = Job>(jobId: string): T | undefined {
  return (defaultClient().read("retrieveJob", { jobId }) as T | null) ?? undefined
}

/** Returns all jobs by `startedAt`, newest first. */
export function getAllJobs<T extends object = Job>(): T[] {
  return defaultClient().read("getAllJobs", {}) as T[]
}

/** Stores a checkpoint; of one id the last one counts. */
export async function defaultStoreCheckpoint<T extends CheckpointFields>(checkpoint: T): Promise<void> {
  await defaultClient().storeLater("storeCheckpoint", checkpoint)
}

/** Returns a checkpoint; rejects with CheckpointNotFound where there is none. */
export async function defaultRetrieveCheckpoint<T extends object = Checkpoint>(
  jobId: string,
  checkpointId: string,
): Promise<T> {
  return (await defaultClient().readLater("retrieveCheckpoint", { jobId, checkpointId })) as T
}

/** Returns the checkpoints of a job by `stepNumber`, ties in the order stored. */
export function getCheckpointsByJobId<T extends object = Checkpoint>(jobId: string): T[] {
  return defaultClient().read("getCheckpointsByJobId", { jobId }) as T[]
}

/** Stores an event; the same one again, byte for byte, is kept once. */
export async function defaultStoreEvent<T extends RunEventFields>(event: T): Promise<void> {
  await defaultClient().storeLater("storeEvent", event)
}

/** Returns time, step and type of the events of a run by `stepNumber`, ties in the order stored. */
export function getEventsByRun<T extends object = EventMeta>(jobId: string, runId: string): T[] {
  return defaultClient().read("getEventsByRun", { jobId, runId }) as T[]
}

/** Returns the events of a run by `timestamp`, ties in the order stored, up to a step where one is given. */
export function getEventContents<T extends object = RunEvent>(
  jobId: string,
  runId: string,
  maxStepNumber?: number,
): T[] {
  return defaultClient().read("getEventContents", { jobId, runId, maxStep: maxStepNumber }) as T[]
}

/**
 * Stores the setting of a run; where there is one, only `updatedAt` changes.
 *
 * With a file system other than that of `createDefaultFileSystem`, or another folder than that of
 * `defaultGetRunDir`, it is written there as the reference does: the daemon does not see it.
 */
export async function storeRunSetting<T extends RunSettingFields>(
  setting: T,
  fs?: FileSystem,
  getRunDir: GetRunDirFn = defaultGetRunDir,
): Promise<void> {
  if (getRunDir === defaultGetRunDir && (fs === undefined || fs === DEFAULT_FILE_SYSTEM)) {
    return await defaultClient().storeLater("storeRunSetting", setting)
  }
  await writeSetting(setting, fs ?? DEFAULT_FILE_SYSTEM, getRunDir(setting.jobId, setting.runId))
}

/** Returns the settings of all runs by `updatedAt`, newest first. */
export function getAllRuns<T extends object = RunSetting>(): T[] {
  return defaultClient().read("getAllRuns", {}) as T[]
}

/** Returns the default file system; `storeRunSetting` knows it, and goes through the daemon. */
export async function createDefaultFileSystem(): Promise<FileSystem> {
  return DEFAULT_FILE_SYSTEM
}
