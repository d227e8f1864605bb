// The waterfall of a job: a lane for each run, drawn on one canvas, so that any number of bars stays smooth.

import type { JSX } from "preact"
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks"
import { path } from "./data"
import { AXIS, draw, LANE, type Lane, type Window } from "./drawing"
import { clock, line, span } from "./format"
import type { Job } from "./model"
import { Link, Name, Status, useWidth } from "./parts"
import { go } from "./router"
import type { Bar, Mark } from "./shapes"

const SHOWN_MAX = 620
const HIT_PX = 4
const ZOOM = 1.5

type Hit = { lane: Lane; bar: Bar | null; mark: Mark | null; x: number; y: number }

export function Waterfall({ job, version, now }: { job: Job; version: number; now: number }): JSX.Element {
  const lanes = useMemo(() => job.lanes(), [job, version])
  const [holder, width] = useWidth<HTMLDivElement>()
  const canvas = useRef<HTMLCanvasElement>(null)
  const [zoom, setZoom] = useState<Window | null>(null)
  const [top, setTop] = useState(0)
  const [hit, setHit] = useState<Hit | null>(null)
  const [chosen, setChosen] = useState(0)
  const drag = useRef<{ x: number; window: Window; moved: boolean } | null>(null)
  const open = lanes.some(({ run }) => !run.ended)
  const all: Window = { from: job.from, to: Math.max(job.to, job.from + 1) }
  if (open && now - job.to < 60_000 && now > job.to) all.to = now
  const pad = (all.to - all.from) * 0.01
  const shown = zoom ?? { from: all.from - pad, to: all.to + pad }
  const height = Math.min(SHOWN_MAX, lanes.length * LANE)

  useLayoutEffect(() => {
    if (canvas.current && width > 0) draw(canvas.current, { width, height, lanes, window: shown, top, chosen, end: all.to })
  })
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)")
    const again = (): void => setChosen(c => c)
    query.addEventListener("change", again)
    return () => query.removeEventListener("change", again)
  }, [])

  const toTime = (x: number): number => shown.from + (x / width) * (shown.to - shown.from)
  const setWindow = (from: number, to: number): void => {
    const least = Math.max((all.to - all.from) / 100_000, 1)
    if (to - from < least) return
    if (from <= all.from - pad && to >= all.to + pad) setZoom(null)
    else setZoom({ from, to })
  }
  const zoomAt = (time: number, factor: number): void => {
    setWindow(time - (time - shown.from) * factor, time + (shown.to - time) * factor)
  }
  const pan = (part: number): void => {
    const by = (shown.to - shown.from) * part
    setWindow(shown.from + by, shown.to + by)
  }
  const find = (event: MouseEvent): Hit | null => {
    const box = canvas.current?.getBoundingClientRect()
    if (!box) return null
    const x = event.clientX - box.left
    const y = event.clientY - box.top
    const lane = lanes[Math.floor((y - AXIS + top) / LANE)]
    if (y < AXIS || !lane) return null
    const time = toTime(x)
    const near = ((shown.to - shown.from) / width) * HIT_PX
    const mark = lane.run.marks.find(one => Math.abs(one.at - time) <= near && one.kind !== "checkpoint") ?? null
    const bars = lane.run.bars.filter(one => one.from - near <= time && (one.to ?? all.to) + near >= time)
    const bar = bars.sort((a, b) => (a.to ?? all.to) - a.from - ((b.to ?? all.to) - b.from))[0] ?? null
    return { lane, bar, mark, x, y }
  }
  const onWheel = (event: WheelEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault()
      const box = canvas.current?.getBoundingClientRect()
      zoomAt(toTime(event.clientX - (box?.left ?? 0)), event.deltaY > 0 ? ZOOM : 1 / ZOOM)
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault()
      pan((event.deltaX || event.deltaY) / width)
    } else if (lanes.length * LANE > height) {
      const next = Math.max(0, Math.min(lanes.length * LANE - height, top + event.deltaY))
      if (next !== top) event.preventDefault()
      setTop(next)
    }
  }
  const wheel = useRef(onWheel)
  wheel.current = onWheel
  useEffect(() => {
    const element = holder.current
    const listener = (event: WheelEvent): void => wheel.current(event)
    element?.addEventListener("wheel", listener, { passive: false })
    return () => element?.removeEventListener("wheel", listener)
  }, [])
  const onKey = (event: KeyboardEvent): void => {
    const middle = (shown.from + shown.to) / 2
    const keys: { [key: string]: () => void } = {
      ArrowLeft: () => pan(-0.1), ArrowRight: () => pan(0.1),
      "+": () => zoomAt(middle, 1 / ZOOM), "=": () => zoomAt(middle, 1 / ZOOM), "-": () => zoomAt(middle, ZOOM),
      "0": () => setZoom(null),
      ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1),
      Enter: () => {
        const lane = lanes[chosen]
        if (lane) go(path(["jobs", job.id, "runs", lane.run.id]))
      },
    }
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key]
    if (!act) return
    event.preventDefault()
    act()
  }
  const choose = (index: number): void => {
    const next = Math.max(0, Math.min(lanes.length - 1, index))
    setChosen(next)
    if (next * LANE < top) setTop(next * LANE)
    else if ((next + 1) * LANE > top + height) setTop((next + 1) * LANE - height)
  }
  const first = Math.floor(top / LANE)
  const visibleLanes = lanes.slice(first, first + Math.ceil(height / LANE) + 1)
  const ofHit = hit && (hit.mark ?? hit.bar)

  return (
    <section class="waterfall" aria-label="Waterfall of the runs">
      <div class="tools">
        <ul class="legend">
          <li><i class="generation" />generation</li><li><i class="first" />until the first token</li>
          <li><i class="tool" />tool</li><li><i class="wait" />waiting</li><li><i class="error" />error</li>
          <li><i class="retry" />retry</li><li><i class="checkpoint" />checkpoint</li>
        </ul>
        <span class="buttons">
          <button type="button" title="Zoom out (-)" onClick={() => zoomAt((shown.from + shown.to) / 2, ZOOM)}>−</button>
          <button type="button" title="Zoom in (+, or Ctrl and wheel)" onClick={() => zoomAt((shown.from + shown.to) / 2, 1 / ZOOM)}>+</button>
          <button type="button" title="Show all (0)" disabled={!zoom} onClick={() => setZoom(null)}>all</button>
        </span>
      </div>
      <div class="lanes" style={{ height: `${height + AXIS}px` }}>
        <div class="labels">
          <div class="moved" style={{ transform: `translateY(${AXIS - (top - first * LANE)}px)` }}>
            {visibleLanes.map((lane, index) => (
              <div key={lane.run.id} class={`label ${first + index === chosen ? "chosen" : ""}`} style={{ paddingLeft: `${8 + Math.min(lane.depth, 8) * 14}px` }}>
                {lane.run.continues !== null && <span title="goes on after its delegates" aria-label="goes on">↳</span>}
                <Link to={path(["jobs", job.id, "runs", lane.run.id])} title={`run ${lane.run.id}`}><Name text={lane.run.expert || lane.run.id} /></Link>
                <Status status={lane.run.status} lastAt={lane.run.to} now={now} />
              </div>
            ))}
          </div>
        </div>
        <div class="bars" ref={holder}>
          <canvas ref={canvas} tabIndex={0} role="img" data-zoom={zoom ? `${zoom.from} ${zoom.to}` : ""} data-top={top}
            aria-label={`${lanes.length} runs, ${span(all.to - all.from)}. Arrow keys move and choose a run, plus and minus zoom, Enter opens it.`}
            onKeyDown={onKey}
            onMouseDown={event => (drag.current = { x: event.clientX, window: shown, moved: false })}
            onMouseMove={event => {
              const held = drag.current
              if (held && event.buttons === 1) {
                const by = ((held.x - event.clientX) / width) * (held.window.to - held.window.from)
                if (Math.abs(event.clientX - held.x) > 3) held.moved = true
                if (held.moved) setZoom({ from: held.window.from + by, to: held.window.to + by })
                return
              }
              setHit(find(event))
            }}
            onMouseLeave={() => setHit(null)}
            onDblClick={event => zoomAt(toTime(event.offsetX), 1 / ZOOM / ZOOM)}
            onClick={event => {
              const held = drag.current
              drag.current = null
              if (held?.moved) return
              const found = find(event)
              if (!found) return
              const what = found.mark ?? found.bar
              const step = found.bar?.step
              if (found.mark && what) go(path(["records", String(what.position)]))
              else go(path(["jobs", job.id, "runs", found.lane.run.id]) + (step === undefined ? "" : `?step=${step}`))
            }} />
          {hit && ofHit && (
            <div class="tip" role="tooltip" style={{ left: `${Math.max(0, Math.min(hit.x + 12, width - 250))}px`, top: `${hit.y + 14}px` }}>
              {hit.mark ? <b>{hit.mark.kind}</b> : <b>{hit.bar?.kind === "wait" ? hit.bar.label : `${hit.bar?.kind}: ${line(hit.bar?.label ?? "", 60)}`}</b>}
              {hit.mark && <span>{line(hit.mark.label, 160)}</span>}
              {!hit.mark && hit.bar && <span>{span((hit.bar.to ?? all.to) - hit.bar.from)}{hit.bar.to === null ? " so far" : ""}{hit.bar.first !== undefined && hit.bar.kind === "generation" ? `, first token after ${span(hit.bar.first - hit.bar.from)}` : ""}</span>}
              <small>{clock(hit.mark ? hit.mark.at : hit.bar?.from)}{hit.bar && !hit.mark ? `, step ${hit.bar.step}` : ""}</small>
            </div>
          )}
        </div>
      </div>
    </section>
  )
}
