// Where each run of a job stands in the drawn graph of delegations. Depth grows to the right, time downwards: a
// run, its delegates beside it, below them the run that goes on. Of many runs some are folded into one node.

import type { Run } from "./shapes"

/** Nodes of a level below one run, of all, and columns, until some are unfolded; and how many more come then. */
export const EACH = 8
export const NODES = 60
export const DEPTH = 6
export const MORE = 24
/** No more are ever drawn. */
export const NODES_MAX = 600

export type Fold = { count: number; statuses: Map<string, number> }
export type Node = {
  key: string
  run: Run | null
  /** Of a node that stands for others: how many runs, by status. */
  fold: Fold | null
  parent: string | null
  /** Whether it goes on for its parent, which waited; else its parent delegated to it. */
  continues: boolean
  column: number
  row: number
}

type Tree = { run: Run; delegates: Tree[]; next: Tree[]; parent: Tree | null; continues: boolean }

/** Runs in the form of trees; each run is in them once, also where runs delegate to each other in a ring. */
function treesOf(runs: ReadonlyMap<string, Run>): Tree[] {
  const trees = new Map<string, Tree>()
  for (const run of runs.values()) trees.set(run.id, { run, delegates: [], next: [], parent: null, continues: false })
  for (const tree of trees.values()) {
    const { continues, delegatedBy } = tree.run
    const parent = trees.get(continues ?? delegatedBy ?? "")
    if (!parent || parent === tree) continue
    tree.parent = parent
    tree.continues = continues !== null
    if (tree.continues) parent.next.push(tree)
    else parent.delegates.push(tree)
  }
  const byTime = (a: Tree, b: Tree): number => Number(a.run.from > b.run.from) - Number(a.run.from < b.run.from)
  for (const tree of trees.values()) {
    tree.delegates.sort(byTime)
    tree.next.sort(byTime)
  }
  const roots = [...trees.values()].filter(tree => tree.parent === null).sort(byTime)
  const seen = new Set(inOrder(roots))
  for (const tree of trees.values()) {
    if (seen.has(tree)) continue
    if (tree.parent) {
      tree.parent.delegates = tree.parent.delegates.filter(one => one !== tree)
      tree.parent.next = tree.parent.next.filter(one => one !== tree)
      tree.parent = null
    }
    roots.push(tree)
    for (const one of inOrder([tree])) seen.add(one)
  }
  return roots
}

function inOrder(roots: Tree[]): Tree[] {
  const found: Tree[] = []
  const stack = [...roots].reverse()
  for (let tree = stack.pop(); tree; tree = stack.pop()) {
    found.push(tree)
    stack.push(...[...tree.delegates, ...tree.next].reverse())
  }
  return found
}

/** What is drawn: which delegates of each run, and what is left of them. */
function chosen(roots: Tree[], unfolded: ReadonlyMap<string, number>): Set<Tree> {
  const shown = new Set<Tree>()
  const more = [...unfolded.values()].reduce((sum, number) => sum + number, 0)
  const room = Math.min(NODES_MAX, NODES + more)
  const depths = new Map<Tree, number>()
  const queue = [...few(roots, EACH + (unfolded.get("") ?? 0))]
  for (let at = 0; at < queue.length && shown.size < room; at++) {
    const tree = queue[at]
    if (!tree) break
    const depth = tree.parent ? (depths.get(tree.parent) ?? 0) + (tree.continues ? 0 : 1) : 0
    const given = tree.parent ? unfolded.get(tree.parent.run.id) ?? 0 : 0
    if (depth > DEPTH && given === 0) continue
    depths.set(tree, given > 0 && depth > DEPTH ? 1 : depth)
    shown.add(tree)
    queue.push(...few(tree.delegates, EACH + (unfolded.get(tree.run.id) ?? 0)), ...tree.next)
  }
  return shown
}

/** The first ones, in their order. Up to half of the places go to failed ones, before the others. */
function few(trees: Tree[], most: number): Tree[] {
  if (trees.length <= most) return trees
  const kept = new Set(trees.filter(tree => tree.run.status === "stoppedByError").slice(0, most >> 1))
  for (const tree of trees) if (kept.size < most) kept.add(tree)
  return trees.filter(tree => kept.has(tree))
}

function foldOf(trees: Tree[]): Fold {
  const statuses = new Map<string, number>()
  const all = inOrder(trees)
  for (const { run } of all) statuses.set(run.status, (statuses.get(run.status) ?? 0) + 1)
  return { count: all.length, statuses }
}

/** The nodes from top to bottom. With `narrow` each has a row of its own, else the first delegate stands beside. */
export function graphOf(runs: ReadonlyMap<string, Run>, unfolded: ReadonlyMap<string, number>, narrow: boolean): Node[] {
  const roots = treesOf(runs)
  const shown = chosen(roots, unfolded)
  const nodes: Node[] = []
  let row = -1
  type Task = { tree: Tree; column: number; beside: boolean } | { fold: Tree[]; parent: Tree | null; column: number; beside: boolean; continues: boolean }
  const tasksOf = (parent: Tree | null, trees: Tree[], column: number, continues: boolean, beside: boolean): Task[] => {
    const tasks: Task[] = trees.filter(tree => shown.has(tree)).map((tree, index) => ({ tree, column, beside: beside && index === 0 }))
    const left = trees.filter(tree => !shown.has(tree))
    if (left.length > 0) tasks.push({ fold: left, parent, column, beside: beside && tasks.length === 0, continues })
    return tasks
  }
  const stack = tasksOf(null, roots, 0, false, false).reverse()
  for (let task = stack.pop(); task; task = stack.pop()) {
    if (!task.beside) row++
    const { column } = task
    if ("fold" in task) {
      const parent = task.parent?.run.id ?? ""
      nodes.push({ key: `fold/${task.continues}/${parent}`, run: null, fold: foldOf(task.fold), parent: task.parent ? parent : null, continues: task.continues, column, row })
      continue
    }
    const { tree } = task
    nodes.push({ key: `run/${tree.run.id}`, run: tree.run, fold: null, parent: tree.parent?.run.id ?? null, continues: tree.continues, column, row })
    stack.push(...[...tasksOf(tree, tree.delegates, column + 1, false, !narrow), ...tasksOf(tree, tree.next, column, true, false)].reverse())
  }
  return nodes
}
