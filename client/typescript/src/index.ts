// The public face of perstack-storage-client.

export type { ErrorCode } from "./errors.js"
export {
  CheckpointNotFound,
  ClosedError,
  DaemonUnavailable,
  EndpointError,
  InvalidArgument,
  OutcomeUnknown,
  PositionGone,
  ProtocolError,
  Refused,
  RETRYABLE,
  StorageError,
  TooMuchOutstanding,
} from "./errors.js"
export type { StoreOp } from "./batch.js"
export type { FollowOptions } from "./follow.js"
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
