// The errors of the client, and the codes of the wire (`proto/wire.md`, section 5).

/** Returns what an error says, whatever was thrown. */
export function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error)
  } catch {
    return typeof error // an object without a form as text
  }
}

/** The codes that stand in `error.code` of an answer, and whether the same request may succeed later. */
export const RETRYABLE = {
  BAD_FRAME: false,
  UNSUPPORTED_VERSION: false,
  UNKNOWN_OPERATION: false,
  BAD_REQUEST: false,
  BAD_JSON: false,
  BAD_VALUE: false,
  TOO_LARGE: false,
  NOT_FOUND: false,
  SEQUENCE_OLD: false,
  SEQUENCE_GAP: true,
  BUSY: true,
  STORAGE_FULL: true,
  DEADLINE: true,
  READ_GONE: true,
  POSITION_GONE: false,
  CONFLICT: false,
  STOPPING: true,
  DAMAGED: false,
  INTERNAL: false,
  FORBIDDEN: false,
  DELETED: false,
  CURSOR_BACK: false,
} as const

/** A code of the wire; a newer daemon may know more. */
export type ErrorCode = keyof typeof RETRYABLE

/** The base of every error that this library raises on purpose; catch it to catch them all. */
export class StorageError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
  }
}

/** An argument can't be used: a value without a form in JSON, an id that none can have. Nothing was sent. */
export class InvalidArgument extends StorageError {}

/**
 * No socket can be made: the endpoint is malformed, too many files are open, or the base is too deep.
 *
 * Give an endpoint, or set PERSTACK_STORED_ENDPOINT or XDG_RUNTIME_DIR, for client and daemon alike.
 */
export class EndpointError extends StorageError {}

/**
 * A daemon of several does not share the history of the others; nothing of the session went to it.
 *
 * Give the endpoints of daemons that share one replicated journal, or a single endpoint. Once the client has met a
 * daemon it passes over one of another history; the error of a call that fails names it.
 */
export class OtherHistory extends EndpointError {}

/** The client was closed before or during the call. */
export class ClosedError extends StorageError {}

/** An answer could not be understood: another program listens there, or the daemon has a fault. */
export class ProtocolError extends StorageError {}

/**
 * Nobody answered within `timeoutMs`, or nobody can: there is no socket. A store that ends so was not sent, so
 * nothing of it is stored.
 *
 * Start a daemon, or wait for one, and call again. The message names the endpoint and the command.
 */
export class DaemonUnavailable extends StorageError {}

/**
 * A store was sent and not answered within `timeoutMs`: it may be stored, or not, and was given up.
 *
 * It is never sent again, and never takes effect after a later store. Read to find out, or store again: an
 * event that is the same byte for byte is kept once, a job or checkpoint is overwritten.
 */
export class OutcomeUnknown extends StorageError {}

/** More stores are unanswered than `maxOutstanding` or `maxOutstandingBytes` allow; this one is not stored. */
export class TooMuchOutstanding extends StorageError {}

/** What a daemon says in `error` of an answer. */
export interface WireError {
  code: string
  message: string
  field?: string
  retryable?: boolean
  retryAfterMs?: number
  /** Of an atomic batch: the number of the value that was refused. */
  item?: number
  /** Of a conflict: where another session stored last. */
  position?: number
}

/**
 * The daemon answered that it did not carry out the request; nothing of it was stored.
 *
 * With `retryable` false the value or the program has to be mended. With `retryable` true (disk full, busy,
 * stopping) the client already tried again until `timeoutMs` was over; call again later.
 */
export class Refused extends StorageError {
  /** An `ErrorCode`, or the word itself where this version does not know it. */
  readonly code: string
  /** The field that broke a rule, where there is one. */
  readonly field: string | undefined
  /** Whether the same request may succeed later. */
  readonly retryable: boolean
  /** The operation, such as `storeEvent`. */
  readonly op: string
  /** In an atomic batch, the number of the value that was refused, from 0. */
  readonly index: number | undefined

  constructor(op: string, error: WireError, message = `${op} refused: ${error.message} (${error.code})`) {
    super(message)
    this.code = error.code
    this.field = error.field
    this.retryable = error.retryable ?? false
    this.op = op
    this.index = error.item
  }
}

/**
 * The daemon does not let this client do that: it may only read, or is on none of the daemon's lists.
 *
 * Ask the operator of the daemon; the same call will be refused again.
 */
export class Forbidden extends Refused {}

/**
 * A store to a job or run that was deleted after this storage's session began. It is not stored.
 *
 * Stop. To begin a new job under the id, make a new storage.
 */
export class Deleted extends Refused {}

/**
 * A position that this history of the daemon does not have: of `follow`, `readAll` or `asOf`.
 *
 * The base is new, or put back from a copy that lacks its newest records, or is a copy that went on by
 * itself. Follow from 0, into an empty place.
 */
export class PositionGone extends Refused {}

/**
 * Another session has stored for the job that was resumed; nothing was stored.
 *
 * Stop working on it, or resume it again and decide by what is there now.
 */
export class JobTakenOver extends Refused {
  /** Where another session stored last, if the daemon says. */
  readonly position: number | undefined

  constructor(op: string, error: WireError, message?: string) {
    super(op, error, message)
    this.position = error.position
  }
}

/** `retrieveCheckpoint` of a checkpoint that is not there, or of a job that is unknown. */
export class CheckpointNotFound extends Refused {
  constructor(op: string, error: WireError) {
    super(op, error, error.message)
  }
}

/** Returns the error for what the daemon refused. */
export function refused(op: string, error: WireError): Refused {
  if (error.code === "NOT_FOUND" && op === "retrieveCheckpoint") return new CheckpointNotFound(op, error)
  if (error.code === "POSITION_GONE") return new PositionGone(op, error)
  if (error.code === "FORBIDDEN") return new Forbidden(op, error)
  if (error.code === "DELETED") return new Deleted(op, error)
  if (error.code === "CONFLICT") return new JobTakenOver(op, error)
  return new Refused(op, error)
}

/** An error as it travels between threads, where classes do not. */
export interface PlainError {
  name: string
  message: string
  /** Of a Refused. */
  op: string | undefined
  code: string | undefined
  field: string | undefined
  retryable: boolean
}

const CLASSES: Readonly<Record<string, new (message: string) => StorageError>> = {
  InvalidArgument,
  EndpointError,
  OtherHistory,
  ClosedError,
  ProtocolError,
  DaemonUnavailable,
  OutcomeUnknown,
  TooMuchOutstanding,
}

/** Returns what `revived` makes an error of again in another thread. */
export function plainOf(error: unknown): PlainError {
  const name = error instanceof Error ? error.name : "Error"
  const refused = error instanceof Refused ? error : undefined
  return {
    name,
    message: messageOf(error),
    op: refused?.op,
    code: refused?.code,
    field: refused?.field,
    retryable: refused?.retryable ?? false,
  }
}

/** Returns the error that another thread has sent. */
export function revived(plain: PlainError): StorageError {
  const { name, message, op, code, field, retryable } = plain
  if (op === undefined || code === undefined) return new (CLASSES[name] ?? StorageError)(message)
  const wire: WireError = { code, message, retryable, ...(field === undefined ? {} : { field }) }
  if (name === "CheckpointNotFound") return new CheckpointNotFound(op, wire)
  if (name === "PositionGone") return new PositionGone(op, wire, message)
  if (name === "Deleted") return new Deleted(op, wire, message)
  if (name === "JobTakenOver") return new JobTakenOver(op, wire, message)
  return name === "Forbidden" ? new Forbidden(op, wire, message) : new Refused(op, wire, message)
}
