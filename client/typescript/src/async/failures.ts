// The errors of calls that have no answer.

import type { Batch } from "../core/batch.js"
import { DaemonUnavailable, messageOf, OutcomeUnknown, refused, StorageError } from "../core/errors.js"
import type { Target } from "../wire/target.js"

/** Why daemons of several were not used, by endpoint. */
export type PassedOver = ReadonlyMap<string, string>

function listed(passedOver: PassedOver): string {
  return [...passedOver].map(([endpoint, why]) => `${endpoint} is passed over: ${why}`).join("; ")
}

/** Of a batch of stores that was given up. `unavailable` makes the error of one that was never sent. */
export function givenUp(
  batch: Batch,
  target: Target,
  passedOver: PassedOver,
  unavailable: () => DaemonUnavailable,
): StorageError {
  const { endpoint, timeoutMs } = target
  const others = listed(passedOver)
  if (batch.error !== undefined) return refused(batch.stores[0]?.op ?? "store", batch.error)
  if (!batch.sentEver) return unavailable()
  return new OutcomeUnknown(
    `a store was sent to ${endpoint} and not answered within ${timeoutMs / 1000} s: the outcome is unknown` +
      (others && `; ${others}`),
  )
}

/** Nobody answered; `trouble` is the connection's, `command` starts a daemon there. */
export function noAnswer(target: Target, trouble: string, command: string): DaemonUnavailable {
  const { endpoint, timeoutMs, keys } = target
  const refused = keys === undefined ? "" : "the daemon's key is another one, or it does not let ours in; or "
  return new DaemonUnavailable(
    `no answer from ${endpoint} within ${timeoutMs / 1000} s${trouble && ` (${trouble})`}; ` +
      `${refused}a daemon is started with: ${command}`,
  )
}

/** Nobody of several answered. */
export function noAnswerOfAny({ endpoint, timeoutMs }: Target, passedOver: PassedOver): DaemonUnavailable {
  const why = listed(passedOver) || "not one of these daemons answered"
  return new DaemonUnavailable(`no answer from ${endpoint} within ${timeoutMs / 1000} s; ${why}`)
}

/** There is no socket. */
export function noSocket({ endpoint }: Target, command: string): DaemonUnavailable {
  return new DaemonUnavailable(`no daemon at ${endpoint}: there is no socket; a daemon is started with: ${command}`)
}

export function asStorageError(error: unknown): StorageError {
  return error instanceof StorageError ? error : new StorageError(`the client failed: ${messageOf(error)}`, { cause: error })
}
