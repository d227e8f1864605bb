// The order of a waterfall.

import type { Run } from "./shapes"

/** Runs in the order of the waterfall, with their depth: a run, its delegates, the run that goes on. */
export function lanesOf(runs: ReadonlyMap<string, Run>): { run: Run; depth: number }[] {
  const children = new Map<string | null, Run[]>()
  for (const run of runs.values()) {
    const parent = run.continues ?? (run.delegatedBy !== null && runs.has(run.delegatedBy) ? run.delegatedBy : null)
    const list = children.get(parent) ?? []
    list.push(run)
    children.set(parent, list)
  }
  for (const list of children.values()) list.sort((a, b) => Number(a.continues !== null) - Number(b.continues !== null) || a.from - b.from)
  const lanes: { run: Run; depth: number }[] = []
  const seen = new Set<Run>()
  const stack = [...(children.get(null) ?? [])].reverse().map(run => ({ run, depth: 0 }))
  const walk = (): void => {
    for (let next = stack.pop(); next; next = stack.pop()) {
      if (seen.has(next.run)) continue
      seen.add(next.run)
      lanes.push(next)
      for (const child of [...(children.get(next.run.id) ?? [])].reverse()) {
        stack.push({ run: child, depth: child.continues === next.run.id ? next.depth : next.depth + 1 })
      }
    }
  }
  walk()
  for (const run of runs.values()) {
    stack.push({ run, depth: 0 }) // runs that delegate to each other in a ring
    walk()
  }
  return lanes
}
