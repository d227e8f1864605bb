// Builds dist/: the modules, and the program of the thread as a text in one of them: a bundle needs no second file.

import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { rmSync, writeFileSync } from "node:fs"

rmSync("dist", { recursive: true, force: true })
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" })

const { outputFiles } = await build({
  entryPoints: ["dist/worker.js"],
  bundle: true,
  write: false,
  platform: "node",
  format: "cjs",
  target: "node20",
  define: { "import.meta.url": "undefined" }, // a text has no place: it is told where modules are found
})
const text = outputFiles[0].text
writeFileSync("dist/worker-source.js", `export const WORKER_SOURCE = ${JSON.stringify(text)}\n`)
rmSync("dist/worker.js")
