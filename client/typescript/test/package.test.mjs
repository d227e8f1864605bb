// The packed package, as a new user gets it: installed into an empty folder, imported, used as its README says.

import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"

import { Daemon, ROOT, run, temporaryFolder } from "./support.mjs"

test("the package installs into an empty folder, and the ten lines of its README run", async (context) => {
  const folder = temporaryFolder(context)
  const source = join(ROOT, "client/typescript")
  const packed = await run(["pack", "--silent", "--ignore-scripts", "--pack-destination", folder], { command: "npm", cwd: source })
  assert.equal(packed.code, 0, packed.stderr)
  const file = packed.stdout.trim()
  writeFileSync(join(folder, "package.json"), '{"type":"module","private":true}')
  const installed = await run(["install", "--no-audit", "--no-fund", "--loglevel=error", `./${file}`], {
    command: "npm",
    cwd: folder,
  })
  assert.equal(installed.code, 0, installed.stderr)
  const [, example] = /```js\n([^]*?)```/.exec(readFileSync(join(source, "README.md"), "utf8"))
  writeFileSync(join(folder, "example.mjs"), example)
  const daemon = await Daemon.on(context, join(folder, "perstack"))
  const done = await run(["example.mjs"], { cwd: folder })
  assert.deepEqual([done.code, done.stderr], [0, ""])
  assert.equal(done.stdout, "101\n")
  const types = await run(["-e", `console.log(require.resolve("perstack-storage-client/package.json"))`], { cwd: folder })
  assert.ok(types.stdout.startsWith(folder), types.stdout + types.stderr)
  assert.ok(readFileSync(join(folder, "node_modules/perstack-storage-client/dist/index.d.ts"), "utf8").includes("createStorage"))
  assert.equal(daemon.process.exitCode, null)
})
