// Which line of the program made a call, for the stack of the error that comes of it later.

/** Two of this package's own frames, and the caller's. Each costs time in every call. */
const FRAMES = 4
/** With more calls unanswered their callers are not noted: in a burst that is a third of what a store costs. */
export const CALLERS_NOTED_MAX = 256

/** Where a call was made; its text is made only when it is needed. */
export interface Caller {
  stack?: string
}

/** Returns who called the function `callee`, to be asked within it. */
export function callerOf(callee: (...args: never[]) => unknown): Caller | undefined {
  const { stackTraceLimit } = Error
  if (typeof stackTraceLimit !== "number" || Object.isFrozen(Error)) return undefined
  const caller: Caller = {}
  Error.stackTraceLimit = Math.min(stackTraceLimit, FRAMES)
  Error.captureStackTrace(caller, callee)
  Error.stackTraceLimit = stackTraceLimit
  return caller
}

const named = new WeakSet<Error>()

/** Gives an error the stack of the call that it comes of, and returns it. An error of many calls names the first. */
export function blamed<E extends Error>(error: E, caller: Caller | undefined): E {
  const { stack } = caller ?? {}
  if (typeof stack !== "string" || named.has(error)) return error
  named.add(error)
  const frames = stack.indexOf("\n    at ")
  if (frames >= 0) error.stack = `${error.name}: ${error.message}${stack.slice(frames)}`
  return error
}
