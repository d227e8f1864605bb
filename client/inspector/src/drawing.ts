// Draws the lanes of a waterfall on a canvas: axis, bars, marks.

import { line, span } from "./format"
import type { Run } from "./shapes"

export const LANE = 34
export const AXIS = 26
const TICK_PX = 110

export type Window = { from: number; to: number }
export type Lane = { run: Run; depth: number }

const COLOURS = ["generation", "first", "tool", "wait", "error", "retry", "checkpoint", "line", "dim", "lane"] as const
type Palette = { [name in (typeof COLOURS)[number]]: string }

function palette(element: Element): Palette {
  const style = getComputedStyle(element)
  return Object.fromEntries(COLOURS.map(name => [name, style.getPropertyValue(`--bar-${name}`).trim()])) as Palette
}

type Scene = { width: number; height: number; lanes: Lane[]; window: Window; top: number; chosen: number; end: number }

export function draw(canvas: HTMLCanvasElement, scene: Scene): void {
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
