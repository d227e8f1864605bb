// A client whose thread never comes up, as in a bundle without worker.js: each call fails at once, and says why.

import assert from "node:assert/strict"
import { cpSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"

import { Daemon, ROOT, run, temporaryFolder } from "./support.mjs"

const PACKAGE = join(ROOT, "client/typescript")
/** Well below the minute that a wait for the thread takes at most; a busy machine has to start a process in it. */
const AT_ONCE_MS = 8000

/** A copy of the built package, whose worker.js is changed. */
function copyOfPackage(context, worker) {
  const folder = temporaryFolder(context)
  cpSync(join(PACKAGE, "dist"), join(folder, "dist"), { recursive: true })
  cpSync(join(PACKAGE, "package.json"), join(folder, "package.json"))
  symlinkSync(join(PACKAGE, "node_modules"), join(folder, "node_modules"))
  const path = join(folder, "dist/worker.js")
  rmSync(path)
  if (worker !== undefined) writeFileSync(path, worker)
  return folder
}

/** Runs a program that calls twice synchronously and once without; what each said, and how long it took. */
async function calls(context, worker, flags = []) {
  const folder = copyOfPackage(context, worker)
  const program = join(folder, "program.mjs")
  writeFileSync(
    program,
    `import * as storage from "./dist/index.js"
    const said = []
    for (const call of [() => storage.getAllJobs(), () => storage.storeJob({}), () => storage.defaultStoreEvent({})]) {
      const started = performance.now()
      try { await call(); said.push(["nothing"]) }
      catch (error) { said.push([error instanceof storage.StorageError, error.message, performance.now() - started]) }
    }
    console.log(JSON.stringify(said))`,
  )
  const done = await run([...flags, program], { cwd: folder, env: { PERSTACK_STORED_BASE: join(folder, "b") } })
  assert.deepEqual([done.code, done.signal], [0, null], done.stderr)
  return JSON.parse(done.stdout)
}

const WORKERS = {
  "is missing": [undefined, /Cannot find module/],
  "is no program": ["this is no program", /Unexpected identifier/],
  "lacks a module": ['import "no-such-module"', /no-such-module/],
  "throws": ['throw new Error("my own")', /my own/],
  "throws nothing in particular": ["throw Object.create(null)", /./],
  "ends by itself": ["process.exit(3)", /status 3/],
  "throws later": ['setTimeout(() => { throw new Error("too late") }); await new Promise(() => {})', /too late/],
}

for (const [name, [worker, reason]] of Object.entries(WORKERS)) {
  test(`a thread whose program ${name} fails each call at once, with the reason and a way out`, async (context) => {
    for (const [isStorageError, message, milliseconds] of await calls(context, worker)) {
      assert.equal(isStorageError, true)
      assert.match(message, reason)
      assert.match(message, /worker\.js/)
      assert.match(message, /bundle/)
      assert.ok(milliseconds < AT_ONCE_MS, `${milliseconds} ms`)
    }
  })
}

test("a thread that ends for want of memory is noticed, and its calls fail", async (context) => {
  const worker = "const all = []; for (;;) all.push(new Array(100_000).fill(1))"
  const flags = ["--max-old-space-size=60"]
  for (const [isStorageError, message] of await calls(context, worker, flags)) {
    assert.equal(isStorageError, true)
    assert.match(message, /memory/)
  }
})

test("a thread that could not be started is tried again, and the reason is not kept for ever", async (context) => {
  const daemon = await Daemon.on(context)
  const folder = copyOfPackage(context, undefined)
  const program = join(folder, "program.mjs")
  writeFileSync(
    program,
    `import { cpSync } from "node:fs"
    import * as storage from "./dist/index.js"
    let said = ""
    try { storage.getAllJobs() } catch (error) { said = error.message }
    cpSync(${JSON.stringify(join(PACKAGE, "dist/worker.js"))}, "dist/worker.js")
    console.log(JSON.stringify([said.includes("worker.js"), storage.getAllJobs()]))`,
  )
  const done = await run([program], { cwd: folder, env: { PERSTACK_STORED_BASE: daemon.base } })
  assert.deepEqual(JSON.parse(done.stdout || "null"), [true, []], done.stderr)
})
