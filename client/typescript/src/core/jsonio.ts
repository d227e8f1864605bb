// JSON to and from bytes.

import { InvalidArgument, messageOf, ProtocolError } from "./errors.js"

/** Returns a value as JSON text, as JSON.stringify makes it; throws InvalidArgument where it makes none. */
export function textOf(value: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (error) {
    // A BigInt, a circle, a toJSON that throws, or more than a string can hold.
    throw new InvalidArgument(`the value has no form in JSON: ${messageOf(error)}`, { cause: error })
  }
  if (text === undefined) throw new InvalidArgument(`the value has no form in JSON: ${typeof value}`)
  return text
}

/** Returns the value of an answer's body. */
export function valueOf(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_STRING_TOO_LONG") {
      const message = `an answer of ${body.length} bytes is more than Node can open at once: read it with page()`
      throw new ProtocolError(message, { cause: error })
    }
    throw new ProtocolError(`the body of an answer is no JSON: ${messageOf(error)}`, { cause: error })
  }
}

/** Returns the array of an answer's body. */
export function arrayOf(body: Buffer): unknown[] {
  const value = valueOf(body)
  if (!Array.isArray(value)) throw new ProtocolError("an answer that should hold an array holds none")
  return value
}
