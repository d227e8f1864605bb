// Access to values that may be anything: of records only what the daemon checks is sure.

export type Value = { [key: string]: unknown }

export function isObject(value: unknown): value is Value {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** A table without what every object has: a type of others may be called `constructor`. */
export function table<T>(entries: { [name: string]: T }): { [name: string]: T } {
  return Object.assign(Object.create(null) as { [name: string]: T }, entries)
}

/** The object under these names, one in the other; an empty one where there is none. */
export function objectIn(value: unknown, ...names: string[]): Value {
  let found = value
  for (const name of names) found = isObject(found) ? found[name] : undefined
  return isObject(found) ? found : {}
}

/** The objects of the list under a name. */
export function objectsIn(value: unknown, name: string): Value[] {
  const items = isObject(value) ? value[name] : undefined
  return Array.isArray(items) ? items.filter(isObject) : []
}

/** The text under a name; nothing where there is none. */
export function textIn(value: unknown, name: string): string {
  const found = isObject(value) ? value[name] : undefined
  if (typeof found === "string") return found
  return found === undefined || found === null ? "" : JSON.stringify(found)
}

/** The number under a name; 0 where there is none. */
export function numberIn(value: unknown, name: string): number {
  const found = isObject(value) ? value[name] : undefined
  return typeof found === "number" && Number.isFinite(found) ? found : 0
}

export type Usage = {
  inputTokens: number
  outputTokens: number
  reasoningTokens: number
  cachedInputTokens: number
  totalTokens: number
}

export const USAGE_FIELDS = [
  "inputTokens", "outputTokens", "reasoningTokens", "cachedInputTokens", "totalTokens",
] as const

export function usageIn(value: unknown): Usage {
  const found: Partial<Usage> = {}
  for (const name of USAGE_FIELDS) found[name] = numberIn(value, name)
  return found as Usage
}

export function added(usages: Usage[], sign = 1): Usage {
  const total = usageIn({})
  for (const usage of usages) for (const name of USAGE_FIELDS) total[name] += usage[name] * sign
  return total
}

export function minus(usage: Usage, other: Usage): Usage {
  return added([usage, added([other], -1)])
}

/** The text of the parts of a message or of a result. */
export function partsText(parts: Value[]): string {
  return parts.map(part => textIn(part, "text") || textIn(part, "thinking") || `(${textIn(part, "type") || "part"})`).join("\n")
}

/** Whether a tool's result is an error: it says so, or its text begins with the word. */
export function isFailed(result: Value): boolean {
  return result.isError === true || objectsIn(result, "result").some(
    part => part.isError === true || textIn(part, "text").startsWith("Error"))
}

/** An error in one sentence. */
export function errorText(error: Value): string {
  const text = [textIn(error, "name"), textIn(error, "message")].filter(Boolean).join(": ")
  const more = "statusCode" in error ? [`status ${textIn(error, "statusCode")}`] : []
  if (error.isRetryable === true) more.push("may be tried again")
  return more.length ? `${text} (${more.join(", ")})` : text
}
