// The public face of perstack-storage-client.

export type { ErrorCode } from "./errors.js"
export {
  CheckpointNotFound,
  ClosedError,
  DaemonUnavailable,
  EndpointError,
  Forbidden,
  InvalidArgument,
  OutcomeUnknown,
  PositionGone,
  ProtocolError,
  Refused,
  RETRYABLE,
  StorageError,
  TooMuchOutstanding,
} from "./errors.js"
export type { FileSystem, GetRunDir } from "./adapter.js"
export type { StoreOp } from "./batch.js"
export type { CurveKeys } from "./connection.js"
export type { FollowOptions } from "./follow.js"
export {
  createDefaultFileSystem,
  createInitialJob,
  defaultRetrieveCheckpoint,
  defaultStoreCheckpoint,
  defaultStoreEvent,
  getAllJobs,
  getAllRuns,
  getCheckpointsByJobId,
  getEventContents,
  getEventsByRun,
  retrieveJob,
  storeJob,
  storeRunSetting,
} from "./functions.js"
export { defaultGetRunDir, getCheckpointDir, getCheckpointPath, getJobDir, getJobsDir } from "./paths.js"
export { closeSharedClient } from "./shared.js"
export type { ListOp, PageArguments, StorageOptions } from "./storage.js"
export { createStorage, DaemonStorage } from "./storage.js"
export type {
  Checkpoint,
  EventMeta,
  ExpertRef,
  Hello,
  Job,
  Page,
  RunEvent,
  RunEventFields,
  RunSetting,
  StoredRecord,
  Usage,
} from "./types.js"
