// How long the client waits before it does something again, in milliseconds.

/** With no answer for so long, a new connection is made and everything unanswered is sent again. */
export const PATIENCE_MIN_MS = 1000
/** It doubles from one silence to the next up to this: a slow answer must get through in the end. */
export const PATIENCE_MAX_MS = 16_000
/** The wait after an error that asks to try again; it doubles from one to the next. */
export const BACKOFF_MIN_MS = 10
export const BACKOFF_MAX_MS = 1000
