// Every export of Perstack's storage, used as Perstack's programs use it. It is compiled only.

import * as whole from "@perstack/filesystem-storage"
import {
  createDefaultFileSystem,
  createInitialJob,
  defaultGetRunDir,
  defaultRetrieveCheckpoint,
  defaultStoreCheckpoint,
  defaultStoreEvent,
  type FileSystem,
  FileSystemStorage,
  type FileSystemStorageConfig,
  getAllJobs,
  getAllRuns,
  getCheckpointDir,
  getCheckpointPath,
  getCheckpointsByJobId,
  getEventContents,
  getEventsByRun,
  getJobDir,
  getJobsDir,
  type GetRunDirFn,
  retrieveJob,
  storeJob,
  storeRunSetting,
} from "@perstack/filesystem-storage"
import * as older from "@perstack/storage"

import type * as perstack from "./shapes.js"

export const asPackage: perstack.StoragePackage = whole
export const asOlderPackage: perstack.StoragePackage = older

const config: FileSystemStorageConfig = { basePath: "./perstack" }
export const storage: perstack.Storage = new FileSystemStorage(config)
export const ofDefaultBase: FileSystemStorage = new FileSystemStorage()

export const options: perstack.RunOptions = {
  retrieveCheckpoint: defaultRetrieveCheckpoint,
  storeCheckpoint: defaultStoreCheckpoint,
  storeEvent: defaultStoreEvent,
  storeJob,
  retrieveJob,
  createJob: createInitialJob,
}
export const optionsOfClass: perstack.RunOptions = {
  retrieveCheckpoint: (jobId, checkpointId) => ofDefaultBase.retrieveCheckpoint(jobId, checkpointId),
  storeCheckpoint: (checkpoint) => ofDefaultBase.storeCheckpoint(checkpoint),
  storeEvent: (event) => ofDefaultBase.storeEvent(event),
}

// Types are inferred from the call alone here, as where a program collects the events of several runs.
const job = createInitialJob("job", "expert", 10)
const events = getEventContents("job", "run", 3)
const checkpoints = getCheckpointsByJobId("job")
const settings = getAllRuns()
const jobs = getAllJobs()
export const fitsPerstack: {
  job: perstack.Job
  events: perstack.RunEvent[]
  checkpoints: perstack.Checkpoint[]
  settings: perstack.RunSetting[]
  jobs: perstack.Job[]
  metas: perstack.EventMeta[]
} = { job, events, checkpoints, settings, jobs, metas: getEventsByRun("job", "run") }

// The other way round: what Perstack's programs hold is stored.
export async function stores(
  event: perstack.RunEvent,
  checkpoint: perstack.Checkpoint,
  setting: perstack.RunSetting,
  found: perstack.Job,
): Promise<void> {
  storeJob(found)
  await defaultStoreEvent(event)
  await defaultStoreCheckpoint(checkpoint)
  const getRunDir: GetRunDirFn = (jobId, runId) => `${getJobDir(jobId)}/${runId}`
  const fs: FileSystem = await createDefaultFileSystem()
  await storeRunSetting(setting, fs, getRunDir)
  await storeRunSetting(setting)
  const ourEvent: whole.RunEvent = event
  const ourCheckpoint: whole.Checkpoint = checkpoint
  const ourSetting: whole.RunSetting = setting
  const ourJob: whole.Job = found
  await ofDefaultBase.storeEvent(ourEvent)
  await ofDefaultBase.storeCheckpoint(ourCheckpoint)
  await ofDefaultBase.storeRunSetting(ourSetting)
  await ofDefaultBase.storeJob(ourJob)
}

export const paths: string[] = [
  getJobsDir(),
  getJobDir("job"),
  getCheckpointDir("job"),
  getCheckpointPath("job", "checkpoint"),
  defaultGetRunDir("job", "run"),
]

// By its type an event tells what else it holds, and a type that nobody has heard of is stored as well.
export function textOf(event: whole.RunEvent): string {
  switch (event.type) {
    case "streamReasoning":
    case "streamRunResult":
      return event.delta
    case "completeRun":
      return `${event.text} after ${event.usage.totalTokens} tokens, ${event.checkpoint.status}`
    case "stopRunByError":
      return event.error.message
    default:
      return event.type
  }
}
export async function storesOthers(other: whole.OtherEvent): Promise<void> {
  await ofDefaultBase.storeEvent(other)
  await ofDefaultBase.storeEvent({ ...other, type: "anotherType", more: [1] })
  await ofDefaultBase.storeJob({ ...job, status: "anotherStatus" })
  const [read] = await ofDefaultBase.getEventContents<whole.RunEvent | whole.OtherEvent>("job", "run")
  if (read?.type === "streamReasoning") read.delta satisfies unknown
}

// What a status is compared with is spelled right, or does not compile.
export const isDone = job.status === "completed"
// @ts-expect-error: there is no such status
export const isOdd = job.status === "complete"
// @ts-expect-error: there is no such type of an event
export const isOddEvent = events[0]?.type === "streamReason"
