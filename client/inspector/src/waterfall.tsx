// The waterfall of a job: a lane for each run, drawn on one canvas, so that any number of bars stays smooth.

import type { JSX } from "preact"
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks"
import { path } from "./data"
import { clock, line, span } from "./format"
import type { Job } from "./model"
import { Link, Name, Status, useWidth } from "./parts"
import { go } from "./router"
import type { Bar, Mark, Run } from "./shapes"

const LANE = 34
const AXIS = 26
const SHOWN_MAX = 620
const TICK_PX = 110
const HIT_PX = 4
const ZOOM = 1.5

type Window = { from: number; to: number }
type Lane = { run: Run; depth: number }
type Hit = { lane: Lane; bar: Bar | null; mark: Mark | null; x: number; y: number }

const COLOURS = ["generation", "first", "tool", "wait", "error", "retry", "checkpoint", "line", "dim", "lane"] as const
type Palette = { [name in (typeof COLOURS)[number]]: string }

function palette(element: Element): Palette {
  const style = getComputedStyle(element)
  return Object.fromEntries(COLOURS.map(name => [name, style.getPropertyValue(`--bar-${name}`).trim()])) as Palette
}

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

type Scene = { width: number; height: number; lanes: Lane[]; window: Window; top: number; chosen: number; end: number }

function draw(canvas: HTMLCanvasElement, scene: Scene): void {
  const { width, height, lanes, window: shown, top, chosen } = scene
  const ratio = devicePixelRatio || 1
  const tall = height + AXIS
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(tall * ratio)) {
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(tall * ratio)
    canvas.style.width = `${width}px`
    canvas.style.height = `${tall}px`
  }
  const context = canvas.getContext("2d")
  if (!context) return
  const colours = palette(canvas)
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  context.clearRect(0, 0, width, tall)
  const x = (time: number): number => ((time - shown.from) / (shown.to - shown.from)) * width
  drawAxis(context, scene, x, colours)
  context.save()
  context.beginPath()
  context.rect(0, AXIS, width, height)
  context.clip()
  const first = Math.floor(top / LANE)
  for (let index = first; index < Math.min(lanes.length, first + height / LANE + 1); index++) {
    const y = AXIS + index * LANE - top
    if (index === chosen && document.activeElement === canvas) {
      context.fillStyle = colours.lane
      context.fillRect(0, y, width, LANE)
    }
    context.fillStyle = colours.line
    context.fillRect(0, y + LANE - 1, width, 1)
    const lane = lanes[index]
    if (lane) drawLane(context, lane.run, y, x, scene, colours)
  }
  context.restore()
}

function drawAxis(context: CanvasRenderingContext2D, scene: Scene, x: (time: number) => number, colours: Palette): void {
  const { width, height, window: shown, lanes } = scene
  const start = Math.min(...lanes.map(lane => lane.run.from))
  const rough = ((shown.to - shown.from) / width) * TICK_PX
  const power = 10 ** Math.floor(Math.log10(rough))
  const size = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough) ?? rough
  context.font = "11px system-ui, sans-serif"
  context.textBaseline = "middle"
  for (let tick = Math.ceil((shown.from - start) / size) * size; tick <= shown.to - start; tick += size) {
    const at = Math.round(x(start + tick)) + 0.5
    context.fillStyle = colours.line
    context.fillRect(at, AXIS - 6, 1, height + 6)
    context.fillStyle = colours.dim
    if (tick >= 0) context.fillText(tick === 0 ? "0" : `+${span(tick)}`, at + 4, AXIS / 2)
  }
}

function drawLane(context: CanvasRenderingContext2D, run: Run, y: number, x: (time: number) => number, scene: Scene, colours: Palette): void {
  const { width, window: shown, end } = scene
  const room = { left: x(run.from), right: x(Math.max(run.to, run.waiting?.to ?? run.to)) }
  context.fillStyle = colours.lane
  context.fillRect(room.left, y + 8, Math.max(2, room.right - room.left), LANE - 17)
  let last = { kind: "", right: -1 } // bars that share a pixel are drawn once
  for (const bar of run.bars) {
    const to = bar.to ?? Math.max(end, bar.from)
    if (to < shown.from || bar.from > shown.to) continue
    const left = Math.max(-2, x(bar.from))
    const right = Math.min(width + 2, x(to))
    if (right <= last.right && bar.kind === last.kind && right - left < 1) continue
    last = { kind: bar.kind, right: Math.max(left + 1, right) }
    const wide = Math.max(1.5, right - left)
    if (bar.kind === "wait") {
      context.fillStyle = colours.wait
      for (let at = left; at < left + wide; at += 6) context.fillRect(at, y + LANE / 2 - 2, Math.min(3, left + wide - at), 3)
    } else if (bar.kind === "tool") {
      context.fillStyle = bar.failed ? colours.error : colours.tool
      context.fillRect(left, y + 10, wide, LANE - 21)
    } else {
      context.fillStyle = colours.generation
      context.fillRect(left, y + 8, wide, LANE - 17)
      const token = bar.first === undefined ? (bar.to === null ? right : left) : Math.min(right, x(bar.first))
      if (token > left + 1) {
        context.fillStyle = colours.first
        context.fillRect(left, y + 8, token - left, LANE - 17)
      }
    }
    if (wide > 44 && bar.kind !== "wait") {
      context.save()
      context.beginPath()
      context.rect(left, y, wide - 4, LANE)
      context.clip()
      context.fillStyle = "#fff"
      context.font = "11px system-ui, sans-serif"
      const from = bar.first !== undefined && wide - (x(bar.first) - left) > 44 ? Math.max(x(bar.first), 0) : left
      if (bar.kind === "tool" || from > left || bar.first === undefined) context.fillText(line(bar.label, 40), Math.max(from, 0) + 5, y + LANE / 2 - 0.5)
      context.restore()
    }
  }
  for (const mark of run.marks) {
    if (mark.at < shown.from || mark.at > shown.to) continue
    const at = x(mark.at)
    if (mark.kind === "checkpoint") {
      context.fillStyle = colours.checkpoint
      context.beginPath()
      context.moveTo(at, y + LANE - 9)
      context.lineTo(at + 3.5, y + LANE - 3)
      context.lineTo(at - 3.5, y + LANE - 3)
      context.fill()
    } else {
      context.fillStyle = mark.kind === "error" ? colours.error : colours.retry
      context.fillRect(at - 1.5, y + 3, 3, LANE - 8)
      context.beginPath()
      context.arc(at, y + 6, 4, 0, Math.PI * 2)
      context.fill()
    }
  }
}
