// The public face of perstack-storage-client.

export type { ErrorCode } from "./core/errors.js"
export {
  CheckpointNotFound,
  ClosedError,
  DaemonUnavailable,
  Deleted,
  EndpointError,
  Forbidden,
  InvalidArgument,
  JobTakenOver,
  OtherHistory,
  OutcomeUnknown,
  PositionGone,
  ProtocolError,
  Refused,
  RETRYABLE,
  StorageError,
  TooMuchOutstanding,
} from "./core/errors.js"
export type { FileSystem, GetRunDirFn } from "./functions/adapter.js"
export type { StoreOp } from "./core/batch.js"
export type { CurveKeys } from "./wire/keys.js"
export type { FollowOptions } from "./core/follow.js"
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
} from "./functions/functions.js"
export { defaultGetRunDir, getCheckpointDir, getCheckpointPath, getJobDir, getJobsDir } from "./functions/paths.js"
export { closeSharedClient } from "./functions/default.js"
export type { StorageOptions } from "./async/client.js"
export type { ListOp, PageArguments, ReadAllArguments, ReadOptions, SummaryArguments } from "./core/filters.js"
export { createStorage, DaemonStorage } from "./async/client.js"
export { Pipeline } from "./async/pipeline.js"
export { ResumedJob } from "./async/resumed.js"
export type { ProjectionStats, Stats } from "./core/stats.js"
export type { FileSystemStorageConfig } from "./functions/class.js"
export { FileSystemStorage } from "./functions/class.js"
export type { EventOf, EventType, OtherEvent, RunEvent, Step } from "./core/events.js"
export type {
  Checkpoint,
  CheckpointFields,
  CheckpointStatus,
  DelegationTarget,
  Deletion,
  EventMeta,
  ExpertRef,
  Hello,
  Job,
  JobFields,
  JobStatus,
  JobSummary,
  NamedCursor,
  Opaque,
  Page,
  RunError,
  RunEventFields,
  RunInput,
  RunSetting,
  RunSettingFields,
  RunSummary,
  Size,
  StoredRecord,
  Summary,
  ToolCall,
  ToolResult,
  Usage,
} from "./core/shapes.js"
