// Records as they are stored: server-sent events after a position. Whatever ends the connection, the next
// one goes on from the last position that came, so nothing is missed.

import { api, exported } from "./data"

const RETRY_MS = 1000
/** The gateway sends its position every 10 s: a connection that is silent for longer is dead. */
const SILENCE_MS = 35_000

export type StreamHandlers = {
  /** A message of the stream: merged records, or jobs that changed. */
  came: (data: string) => void
  /** All there was has come. */
  at?: (position: number) => void
  trouble: (message: string) => void
  /** Something came: there is no trouble now. */
  ok: () => void
  /** The store lacks the position: it was replaced. The stream has ended. */
  gone: () => void
}

/** Follow what is stored after a position. Returns what ends it. */
export function stream(query: { [name: string]: string | number | null }, after: number, on: StreamHandlers): () => void {
  if (exported) return () => {}
  let last = after
  let source: EventSource | null = null
  let timer = 0

  const end = (): void => {
    clearTimeout(timer)
    source?.close()
    source = null
  }
  const again = (): void => {
    end()
    on.trouble("The inspector does not answer.")
    timer = window.setTimeout(open, RETRY_MS)
  }
  const watch = (): void => {
    clearTimeout(timer)
    timer = window.setTimeout(again, SILENCE_MS)
  }
  const came = (event: Event): string => {
    const { data, lastEventId } = event as MessageEvent<string>
    last = Math.max(last, Number(lastEventId))
    watch()
    return data
  }
  const open = (): void => {
    source = new EventSource(api(["stream"], { ...query, after: last }))
    watch()
    source.addEventListener("error", again) // the browser itself gives up where the answer is no stream
    for (const name of ["records", "jobs"]) {
      source.addEventListener(name, event => {
        const data = came(event)
        on.ok()
        on.came(data)
      })
    }
    source.addEventListener("at", event => {
      const data = came(event)
      on.ok()
      on.at?.(Number(data))
    })
    source.addEventListener("trouble", event => {
      const { error } = JSON.parse(came(event)) as { error: { code: string; message: string } }
      if (error.code === "POSITION_GONE") {
        end()
        on.gone()
      } else {
        on.trouble(error.message)
      }
    })
  }
  open()
  return end
}
