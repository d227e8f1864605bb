// Where the tree keeps what: absolute paths, the same from any directory. Nothing is read or made.

import { join } from "node:path"

import { InvalidArgument } from "../core/errors.js"
import { defaultClient } from "./default.js"

const ID_BYTES_MAX = 200
const FORBIDDEN = /[/\\\u0000-\u001f\u007f-\u009f]/

/** Returns the folder that holds a folder for each job. */
export function getJobsDir(): string {
  return join(defaultClient().base, "jobs")
}

/** Returns the folder of a job. Throws InvalidArgument for an id that none can have; so do the others here. */
export function getJobDir(jobId: string): string {
  return join(getJobsDir(), checkedId(jobId, "jobId"))
}

/** Returns the folder of a job's checkpoints. */
export function getCheckpointDir(jobId: string): string {
  return join(getJobDir(jobId), "checkpoints")
}

/** Returns the file of a checkpoint. */
export function getCheckpointPath(jobId: string, checkpointId: string): string {
  return join(getCheckpointDir(jobId), `${checkedId(checkpointId, "checkpointId")}.json`)
}

/** Returns the folder of a run: its setting and its events. */
export function defaultGetRunDir(jobId: string, runId: string): string {
  return join(getJobDir(jobId), "runs", checkedId(runId, "runId"))
}

/** Returns an id of which section 6 of `proto/wire.md` says that it may be stored. */
function checkedId(id: string, name: string): string {
  const length = Buffer.byteLength(id)
  if (length < 1 || length > ID_BYTES_MAX || id === "." || id === ".." || FORBIDDEN.test(id)) {
    throw new InvalidArgument(
      `${name} must be 1 to ${ID_BYTES_MAX} bytes without slash, backslash or control characters, and not "." or "..": ` +
        JSON.stringify(id.slice(0, ID_BYTES_MAX)),
    )
  }
  return id
}
