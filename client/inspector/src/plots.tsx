// Plots in SVG: few marks, each with its figure in words.

import type { JSX } from "preact"
import { count, line, short } from "./format"
import type { Job } from "./model"
import { useWidth } from "./parts"

export type Column = { label: string; title: string; parts: { name: string; value: number }[] }

const HEIGHT = 150
const FOOT = 20
const LEFT = 44
const LABEL = 90 // pixels

/** Columns of parts, one upon the other; `labels` has words for names that are none. */
export function Columns({ columns, names, title, labels }: { columns: Column[]; names: string[]; title: string; labels?: ReadonlyMap<string, string> }): JSX.Element {
  const [element, width] = useWidth<HTMLDivElement>()
  const sums = columns.map(column => column.parts.reduce((sum, part) => sum + part.value, 0))
  const most = Math.max(1, ...sums)
  const room = Math.max(1, width - LEFT)
  const each = room / Math.max(1, columns.length)
  const tall = HEIGHT - FOOT
  const shown = labelsOf(columns, each, room)
  return (
    <figure class="plot">
      <figcaption>{title}
        <ul class="legend">{names.map((name, index) => <li key={name}><i class={`part${index}`} />{line(labels?.get(name) ?? name, 40)}</li>)}</ul>
      </figcaption>
      <div ref={element}>
        <svg width={width} height={HEIGHT} role="img" aria-label={`${title}: ${columns.length} columns, at most ${count(most)}`}>
          {[0, 0.5, 1].map(part => (
            <g key={part}>
              <line x1={LEFT} x2={width} y1={tall - part * (tall - 8)} y2={tall - part * (tall - 8)} class="grid" />
              <text x={LEFT - 6} y={tall - part * (tall - 8) + 4} class="tick" text-anchor="end">{short(most * part)}</text>
            </g>
          ))}
          {columns.map((column, index) => {
            let top = tall
            return (
              <g key={index}>
                <title>{column.title}</title>
                {column.parts.map((part, number) => {
                  const high = (part.value / most) * (tall - 8)
                  top -= high
                  return <rect key={number} class={`part${names.indexOf(part.name)}`} x={LEFT + index * each + each * 0.12} width={Math.max(1, each * 0.76)} y={top} height={high} />
                })}
                {shown.has(index) && <text class="tick" x={LEFT + index * each + each * 0.12} y={HEIGHT - 4}>{column.label}</text>}
              </g>
            )
          })}
        </svg>
      </div>
    </figure>
  )
}

/** The columns whose labels are shown: where there is room, and each label once. */
function labelsOf(columns: Column[], each: number, room: number): Set<number> {
  const shown = new Set<number>()
  const every = Math.ceil(LABEL / each)
  let next = 0
  let last = ""
  columns.forEach(({ label }, index) => {
    if (index < next || label === last || room - index * each < LABEL / 2) return
    shown.add(index)
    next = index + every
    last = label
  })
  return shown
}

/** Tokens of each step of a job, in order of time. */
export function Steps({ job }: { job: Job }): JSX.Element | null {
  const steps = [...job.runs.values()].flatMap(run => [...run.steps.values()].filter(step => step.usage).map(step => ({ run, step })))
  if (!steps.length) return null
  steps.sort((a, b) => a.step.from - b.step.from)
  const shown = steps.slice(-400)
  const columns = shown.map(({ run, step }) => {
    const usage = step.usage
    const parts = [{ name: "input", value: usage?.inputTokens ?? 0 }, { name: "output", value: usage?.outputTokens ?? 0 }]
    return {
      label: `${step.number}`, parts,
      title: `step ${step.number} of ${line(run.expert, 60)}: ${parts.map(part => `${count(part.value)} ${part.name}`).join(", ")}`,
    }
  })
  return <Columns columns={columns} names={["input", "output"]} title="Tokens of each step" />
}
