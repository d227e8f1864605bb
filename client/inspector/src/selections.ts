// Records of a job by position, read in pages; of several selections, which are put in order.

import { api, json, type Record, type RecordPage } from "./data"

/** Parameters of `/api/records`. Selections that are read together have no record in common. */
export type Selection = { types?: string; ops?: string; run?: string }

export type Span = { job: string; after: number; upTo: number; limit: number; signal: AbortSignal }

/** One selection: a page is asked for while the one before is taken. */
class Reader {
  items: Record[] = []
  ended = false
  /** All up to here are in `items`, or were taken out. */
  reached: number
  private coming: Promise<RecordPage>

  constructor(private readonly selection: Selection, private readonly span: Span) {
    this.reached = span.after
    this.coming = this.ask()
  }

  async next(): Promise<void> {
    const { upTo } = this.span
    const page = await this.coming
    this.ended = page.end || page.next >= upTo
    this.reached = Math.min(page.next, upTo)
    if (!this.ended) this.coming = this.ask()
    this.items = this.items.concat(page.items.filter(record => record.position <= upTo))
  }

  take(upTo: number): Record[] {
    const later = this.items.findIndex(record => record.position > upTo)
    return this.items.splice(0, later < 0 ? this.items.length : later)
  }

  private ask(): Promise<RecordPage> {
    const { job, limit, signal } = this.span
    const coming = json<RecordPage>(api(["records"], { job, after: this.reached, limit, ...this.selection }), signal)
    coming.catch(() => {}) // told by `next`, if it comes to that
    return coming
  }
}

/** Give the records of selections in the order of their positions, piece by piece. Returns the position reached. */
export async function readInOrder(selections: Selection[], span: Span, take: (records: Record[]) => void): Promise<number> {
  const readers = selections.map(selection => new Reader(selection, span))
  for (;;) {
    const reached = Math.min(...readers.map(reader => reader.reached))
    const behind = readers.filter(reader => !reader.ended && reader.reached === reached)
    const found = readers.flatMap(reader => reader.take(reached))
    if (readers.length > 1) found.sort((a, b) => a.position - b.position)
    take(found)
    if (behind.length === 0) return reached
    await Promise.all(behind.map(reader => reader.next()))
  }
}
