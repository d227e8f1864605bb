// The graph of delegations of a job: a node for each run, lines from who delegates to whom.

import type { JSX } from "preact"
import { useMemo, useState } from "preact/hooks"
import { path } from "./data"
import { count, short, span } from "./format"
import { graphOf, MORE, type Fold, type Node } from "./delegations"
import type { Job } from "./model"
import { Link, moodOf, Name, Status, useWidth } from "./parts"
import type { Run } from "./shapes"

const WIDE = 720
const BESIDE = { width: 240, height: 50, across: 284, down: 62, pad: 16 }
const BELOW = { width: 0, height: 50, across: 20, down: 60, pad: 12 }
const LEAST = 190

export function Graph({ job, version, now }: { job: Job; version: number; now: number }): JSX.Element {
  const [element, width] = useWidth<HTMLDivElement>()
  const [unfolded, setUnfolded] = useState<ReadonlyMap<string, number>>(new Map())
  const narrow = width < WIDE
  const nodes = useMemo(() => graphOf(job.runs, unfolded, narrow), [job, version, unfolded, narrow])
  const size = narrow ? BELOW : BESIDE
  const columns = nodes.reduce((most, node) => Math.max(most, node.column), 0)
  const rows = nodes.reduce((most, node) => Math.max(most, node.row), 0) + 1
  const wide = narrow ? Math.max(LEAST, width - 2 * size.pad - columns * size.across) : size.width
  const x = (node: Node): number => size.pad + node.column * size.across
  const y = (node: Node): number => size.pad + node.row * size.down
  const byRun = new Map(nodes.map(node => [node.run?.id ?? "", node]))
  const delegations = [...job.runs.values()].filter(run => run.continues === null && run.delegatedBy !== null && job.runs.has(run.delegatedBy)).length
  const unfold = (parent: string): void => setUnfolded(new Map(unfolded).set(parent, (unfolded.get(parent) ?? 0) + MORE))
  return (
    <section class="graph" aria-label="Graph of delegations">
      <div class="tools">
        <ul class="legend"><li><i class="delegates" />delegates to</li><li><i class="goes" />goes on, with their results</li></ul>
        <span class="dim">{count(job.runs.size)} {job.runs.size === 1 ? "run" : "runs"}, {count(delegations)} {delegations === 1 ? "delegation" : "delegations"}</span>
      </div>
      <div class="field" ref={element} onKeyDown={move}>
        <div class="space" style={{ width: `${2 * size.pad + columns * size.across + wide}px`, height: `${2 * size.pad + (rows - 1) * size.down + size.height}px` }}>
          <svg width={2 * size.pad + columns * size.across + wide} height={2 * size.pad + (rows - 1) * size.down + size.height} aria-hidden="true">
            {nodes.map(node => {
              const from = node.parent === null ? undefined : byRun.get(node.parent)
              if (!from) return null
              return <path key={node.key} class={node.continues ? "goes" : "delegates"} d={lineOf(x(from), y(from), x(node), y(node), { ...size, wide, narrow, continues: node.continues })} />
            })}
          </svg>
          {nodes.map(node => {
            const style = { left: `${x(node)}px`, top: `${y(node)}px`, width: `${wide}px`, height: `${size.height}px` }
            return (
              <div key={node.key} class="place" style={style}>
                {node.run ? <RunNode job={job.id} run={node.run} now={now} /> : node.fold && <FoldNode fold={node.fold} now={now} open={() => unfold(node.parent ?? "")} />}
              </div>
            )
          })}
        </div>
      </div>
    </section>
  )
}

function RunNode({ job, run, now }: { job: string; run: Run; now: number }): JSX.Element {
  const lastAt = Number.isFinite(run.to) ? run.to : null
  const [mood] = moodOf(run.status || null, lastAt, now)
  return (
    <Link class={`vertex ${mood}`} to={path(["jobs", job, "runs", run.id])} title={`run ${run.id}`}>
      <b><Name text={run.expert || run.id} /></b>
      <span><Status status={run.status || null} lastAt={lastAt} now={now} /><small>{[Number.isFinite(run.from) ? span(run.to - run.from) : "", run.own ? `${short(run.own.totalTokens)} tok` : ""].filter(Boolean).join(", ")}</small></span>
    </Link>
  )
}

function FoldNode({ fold, now, open }: { fold: Fold; now: number; open: () => void }): JSX.Element {
  const words = new Map<string, number>()
  for (const [status, number] of fold.statuses) {
    const [, word] = moodOf(status || null, null, now)
    words.set(word, (words.get(word) ?? 0) + number)
  }
  const said = [...words].sort((a, b) => b[1] - a[1]).slice(0, 4).map(([word, number]) => `${count(number)} ${word}`).join(", ")
  return (
    <button type="button" class="vertex fold" onClick={open} title={`${said}. Show more of them.`}>
      <b>+ {count(fold.count)} {fold.count === 1 ? "run" : "runs"}</b><small>{said}</small>
    </button>
  )
}

type Form = { wide: number; height: number; narrow: boolean; continues: boolean }

/** The line from a node to another: to the right of it, or from its foot down. */
function lineOf(fromX: number, fromY: number, toX: number, toY: number, form: Form): string {
  const { wide, height, narrow, continues } = form
  if (continues) return `M${fromX + 10} ${fromY + height}V${toY}`
  const middle = toY + height / 2
  if (narrow) return `M${fromX + 10} ${fromY + height}V${middle - 6}Q${fromX + 10} ${middle} ${fromX + 16} ${middle}H${toX}`
  const out = fromX + wide
  const turn = out + (toX - out) / 2
  if (fromY === toY) return `M${out} ${middle}H${toX}`
  return `M${out} ${fromY + height / 2}H${turn - 6}Q${turn} ${fromY + height / 2} ${turn} ${fromY + height / 2 + 6}V${middle - 6}Q${turn} ${middle} ${turn + 6} ${middle}H${toX}`
}

/** Arrow keys go from node to node as they stand; Tab and Enter do what they always do. */
function move(event: KeyboardEvent): void {
  const current = event.target as HTMLElement
  const ways: { [key: string]: [number, number] } = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }
  const way = event.ctrlKey || event.metaKey || event.altKey ? undefined : ways[event.key]
  if (!way || !current.classList.contains("vertex")) return
  event.preventDefault()
  const here = current.getBoundingClientRect()
  let best: HTMLElement | null = null
  let least = Infinity
  for (const other of (event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>(".vertex")) {
    const there = other.getBoundingClientRect()
    const [across, down] = [there.left - here.left, there.top - here.top]
    const ahead = way[0] * across + way[1] * down
    const aside = Math.abs(way[0] ? down : across)
    const distance = ahead + aside * 3
    if (ahead > 1 && distance < least) [best, least] = [other, distance]
  }
  best?.focus()
}
