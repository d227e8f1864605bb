// The page: which screen an address means, and what is around each.

import { render, type JSX } from "preact"
import { useEffect, useState } from "preact/hooks"
import { api, exported, json, path } from "./data"
import { count } from "./format"
import { ErrorsPage } from "./errors"
import { UsagePage } from "./insights"
import { JobPage } from "./job"
import { Jobs } from "./jobs"
import { Empty, Link } from "./parts"
import { DiffPage, RecordPage } from "./record"
import { go, takeLinks, usePlace } from "./router"
import { RunPage } from "./run"
import { ToolsPage } from "./tools"
import "./style.css"

function Screen(): JSX.Element {
  const { parts } = usePlace()
  const [first, id, second, inner] = parts
  useEffect(() => {
    document.title = [parts.slice(1).pop() ?? { usage: "Usage", tools: "Tools", errors: "Errors" }[first ?? ""] ?? "Jobs", "Perstack inspector"].join(" · ")
  })
  if (first === undefined) return exported ? <JobPage id={exported.job} /> : <Jobs />
  if (first === "usage" && !id) return <UsagePage />
  if (first === "tools" && !id) return <ToolsPage />
  if (first === "errors" && !id) return <ErrorsPage />
  if (first === "jobs" && id !== undefined) {
    if (second === undefined) return <JobPage key={id} id={id} />
    if (second === "runs" && inner !== undefined) return <RunPage key={`${id}/${inner}`} id={id} run={inner} />
    if (second === "diff") return <DiffPage id={id} />
  }
  if (first === "records" && id !== undefined && /^[1-9][0-9]{0,15}$/.test(id)) return <RecordPage key={id} position={Number(id)} />
  return <main><Empty>There is no such page. <Link to="/">All jobs</Link></Empty></main>
}

const THEMES = ["auto", "light", "dark"] as const
type Theme = (typeof THEMES)[number]
const THEME_KEY = "perstack-inspector-theme"

function kept(): Theme {
  try {
    const found = localStorage.getItem(THEME_KEY)
    return THEMES.find(theme => theme === found) ?? "auto"
  } catch {
    return "auto"
  }
}

function ThemeSwitch(): JSX.Element {
  const [theme, set] = useState(kept)
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
    try {
      localStorage.setItem(THEME_KEY, theme)
    } catch { /* it is not kept then */ }
    dispatchEvent(new Event("resize")) // what is drawn takes its colours again
  }, [theme])
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto"
  return <button type="button" class="plain theme" title={`Colours: ${theme}. Next: ${next}`} aria-label={`Colours: ${theme}`} onClick={() => set(next)}>{{ auto: "◐", light: "☀", dark: "☾" }[theme]}</button>
}

function Find(): JSX.Element {
  return (
    <form class="find" onSubmit={event => {
      event.preventDefault()
      const given = new FormData(event.currentTarget).get("position")
      const number = typeof given === "string" ? given.replace(/[#,\s]/g, "") : ""
      if (/^[1-9][0-9]*$/.test(number)) go(path(["records", number]))
    }}>
      <label><span class="hidden">Go to a position</span><input name="position" inputMode="numeric" placeholder="# position" size={9} autocomplete="off" /></label>
    </form>
  )
}

function Daemon(): JSX.Element | null {
  const [said, set] = useState<{ version?: string; base?: string } | null>(null)
  useEffect(() => {
    json<{ daemon: { version?: string; base?: string } }>(api(["hello"])).then(found => set(found.daemon), () => set(null))
  }, [])
  return said ? <p>perstack-stored {said.version}, base <bdi class="code">{said.base}</bdi></p> : null
}

function App(): JSX.Element {
  const { parts } = usePlace()
  const at = (name: string | undefined): "page" | undefined => (parts[0] === name || (!name && parts[0] === "jobs") ? "page" : undefined)
  return (
    <>
      <a class="skip" href="#main">Skip to the content</a>
      <header class="bar">
        <Link to={exported ? path(["jobs", exported.job]) : "/"} class="brand">perstack <b>inspector</b></Link>
        {!exported && (
          <nav aria-label="Main">
            <Link to="/" aria-current={at(undefined)}>Jobs</Link>
            <Link to="/usage" aria-current={at("usage")}>Usage</Link>
            <Link to="/tools" aria-current={at("tools")}>Tools</Link>
            <Link to="/errors" aria-current={at("errors")}>Errors</Link>
          </nav>
        )}
        <span class="grow" />
        <Find />
        <ThemeSwitch />
      </header>
      <div id="main"><Screen /></div>
      <footer class="foot">{exported ? <p>Exported from perstack inspector: {count(exported.records.length)} records.</p> : <Daemon />}</footer>
    </>
  )
}

takeLinks()
const root = document.getElementById("app")
if (root) render(<App />, root)
