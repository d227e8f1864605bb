// The jobs that were read so far, and what changes of them. List and stream meet without a gap: the stream
// starts at the position that the first page is of, and a read that fails is made again.

import { api, ApiError, json, type Page, type Summary } from "./data"
import { stream } from "./stream"

const FIRST = 100
const PAGE = 500
const MOST = 1000
const REFRESH_MS = 250
const RETRY_MS = 1000
const OTHERS_MAX = 20

/** A time to choose: its name, words for it, milliseconds. */
export const TIMES: [string, string, number][] = [
  ["", "any time", 0], ["1h", "last hour", 3_600_000], ["1d", "last day", 86_400_000], ["7d", "last 7 days", 604_800_000],
]

export type Filters = { search: string; status: string; expert: string; time: string }

/** A summary, and the position that it is of: an older answer that comes late does not replace it. */
type Listed = Summary & { at: number }

export class JobList {
  order: Listed[] = []
  complete = false
  loading = false
  ready = false
  private jobs = new Map<string, Listed>()
  private cursor: string | null = null
  private readTrouble = ""
  private streamTrouble = ""
  private changed = new Set<string>()
  private anyChanged = false
  private timer = 0
  private stop: (() => void) | null = null
  private readonly ending = new AbortController()

  constructor(readonly filters: Filters, private readonly draw: () => void) {}

  get trouble(): string {
    return this.streamTrouble || this.readTrouble
  }

  /** Read the first page, then follow from there. */
  async start(): Promise<void> {
    const position = await this.read(FIRST)
    if (position === null || this.ending.signal.aborted) return
    this.stop = stream({ form: "jobs" }, position, {
      came: data => this.mark((JSON.parse(data) as { jobs: string[] | null }).jobs),
      trouble: message => this.say(message),
      ok: () => this.say(""),
      gone: () => this.say("The store was replaced. Load the page again."),
    })
  }

  end(): void {
    this.ending.abort()
    clearTimeout(this.timer)
    this.stop?.()
  }

  /** Read the next page, where there is one. */
  async more(size = PAGE): Promise<void> {
    if (this.ready && !this.loading && !this.complete) await this.read(size)
  }

  /** Read a page. Returns the position that it is of, or null where it is refused. */
  private async read(limit: number): Promise<number | null> {
    this.loading = true
    const page = await this.answer(() => this.query({ limit, after: this.cursor }))
    this.loading = false
    if (page) {
      this.take(page.items, page.position ?? 0)
      this.cursor = page.next
      this.complete = page.next === null
      this.ready = true
    }
    this.draw()
    return page && (page.position ?? 0)
  }

  private say(trouble: string): void {
    if (trouble === this.streamTrouble) return
    this.streamTrouble = trouble
    this.draw()
  }

  /** Jobs have changed; where they are null any may have. */
  private mark(ids: string[] | null): void {
    if (ids) for (const id of ids) this.changed.add(id)
    else this.anyChanged = true
    this.timer ||= window.setTimeout(() => void this.refresh(), 20)
  }

  /** Read the newest again, and those that have changed: a few times a second at most. */
  private async refresh(): Promise<void> {
    if (this.anyChanged) await this.readAllAgain()
    const changed = [...this.changed]
    this.changed.clear()
    const page = await this.answer(() => this.query({ limit: FIRST }))
    if (page) {
      this.take(page.items, page.position ?? 0)
      const got = new Set(page.items.map(job => job.jobId))
      const others = changed.filter(id => !got.has(id))
      for (const id of others.slice(OTHERS_MAX)) this.changed.add(id)
      for (const id of others.slice(0, OTHERS_MAX)) await this.readAgain(id)
    }
    this.draw()
    this.timer = 0
    if ((this.changed.size || this.anyChanged) && !this.ending.signal.aborted) {
      this.timer = window.setTimeout(() => void this.refresh(), REFRESH_MS)
    }
  }

  /** Read all of the list again, page by page, as slowly; those that are no longer in it one by one. */
  private async readAllAgain(): Promise<void> {
    this.anyChanged = false
    const left = new Set(this.jobs.keys())
    const last = this.order[this.order.length - 1]
    let cursor: string | null = null
    do {
      const page: Page<Summary> | null = await this.answer(() => this.query({ limit: left.size > FIRST ? MOST : FIRST, after: cursor }))
      if (!page) return
      this.take(page.items.filter(job => this.complete || this.jobs.has(job.jobId) || (last && job.startedAt > last.startedAt)), page.position ?? 0)
      for (const { jobId } of page.items) left.delete(jobId)
      const lowest = page.items[page.items.length - 1]
      cursor = last && lowest && lowest.startedAt < last.startedAt ? null : page.next
      this.draw()
      if (left.size && cursor !== null) await new Promise(resolve => setTimeout(resolve, REFRESH_MS))
    } while (left.size && cursor !== null && !this.ending.signal.aborted)
    for (const id of left) this.changed.add(id)
  }

  /** Read one job again, which may be in the list now, or no longer. */
  private async readAgain(id: string): Promise<void> {
    const page = await this.answer(() => this.query({ job: id, limit: 1 }))
    const found = page?.items.find(job => job.jobId === id)
    const last = this.order[this.order.length - 1]
    if (found && (this.complete || this.jobs.has(id) || (last && found.startedAt > last.startedAt))) {
      this.take([found], page?.position ?? 0)
    } else if (page && !found && this.jobs.delete(id)) {
      this.order = this.order.filter(job => job.jobId !== id)
    }
  }

  private query(more: { [name: string]: string | number | null }): string {
    const age = TIMES.find(([name]) => name === this.filters.time)?.[2]
    return api(["jobs"], {
      contains: this.filters.search, status: this.filters.status, expert: this.filters.expert, since: age ? Date.now() - age : null, ...more,
    })
  }

  /** What is answered in the end; null where that is a refusal, or nobody waits for it. */
  private async answer(path: () => string): Promise<Page<Summary> | null> {
    const { signal } = this.ending
    while (!signal.aborted) {
      try {
        const page: Page<Summary> = await json(path(), signal)
        this.readTrouble = ""
        return page
      } catch (error) {
        if (signal.aborted) break
        this.readTrouble = String(error instanceof Error ? error.message : error)
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) break
        this.draw()
        await new Promise(resolve => setTimeout(resolve, RETRY_MS))
      }
    }
    return null
  }

  private take(items: Summary[], at: number): void {
    const fresh = items.filter(job => !this.jobs.has(job.jobId))
    const last = this.order[this.order.length - 1]
    const first = fresh[0]
    const follows = fresh.length === items.length && (!last || (first !== undefined && last.startedAt >= first.startedAt))
    const taken = items.filter(job => (this.jobs.get(job.jobId)?.at ?? -1) <= at).map(job => ({ ...job, at }))
    for (const job of taken) this.jobs.set(job.jobId, job)
    this.order = follows // the next page needs no sorting
      ? this.order.concat(taken)
      : [...this.jobs.values()].sort((a, b) => b.startedAt - a.startedAt || (a.jobId < b.jobId ? -1 : 1))
  }
}
