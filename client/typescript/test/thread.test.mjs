// A client whose thread never comes up: each call fails at once, and says why.

import assert from "node:assert/strict"
import { cpSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"

import { Daemon, ROOT, run, temporaryFolder } from "./support.mjs"

const PACKAGE = join(ROOT, "client/typescript")
/** Well below the minute that a wait for the thread takes at most; a busy machine has to start a process in it. */
const AT_ONCE_MS = 8000

/** A copy of the built package, of which the thread runs another program. */
function copyOfPackage(context, worker) {
  const folder = temporaryFolder(context)
  cpSync(join(PACKAGE, "dist"), join(folder, "dist"), { recursive: true })
  cpSync(join(PACKAGE, "package.json"), join(folder, "package.json"))
  symlinkSync(join(PACKAGE, "node_modules"), join(folder, "node_modules"))
  writeFileSync(join(folder, "dist/worker-source.js"), `export const WORKER_SOURCE = ${worker}`)
  return folder
}

/** Runs a program that calls twice synchronously and once without; what each said, and how long it took. */
async function calls(context, worker, flags = []) {
  const folder = copyOfPackage(context, JSON.stringify(worker))
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
  "lacks a module": ['require("no-such-module")', /no-such-module/],
  "throws": ['throw new Error("my own")', /my own/],
  "throws nothing in particular": ["throw Object.create(null)", /./],
  "ends by itself": ["process.exit(3)", /status 3/],
  "throws later": ['setTimeout(() => { throw new Error("too late") })', /too late/],
}

for (const [name, [worker, reason]] of Object.entries(WORKERS)) {
  test(`a thread whose program ${name} fails each call at once, with the reason`, async (context) => {
    for (const [isStorageError, message, milliseconds] of await calls(context, worker)) {
      assert.equal(isStorageError, true)
      assert.match(message, reason)
      assert.match(message, /can't be started/)
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
  const real = join(PACKAGE, "dist/worker-source.js")
  const once = `(await import(${JSON.stringify(real)})).WORKER_SOURCE.replace(
    "", 'if (!require("node:fs").existsSync("mended")) throw new Error("my own");')`
  const folder = copyOfPackage(context, once)
  const program = join(folder, "program.mjs")
  writeFileSync(
    program,
    `import { writeFileSync } from "node:fs"
    import * as storage from "./dist/index.js"
    let said = ""
    try { storage.getAllJobs() } catch (error) { said = error.message }
    writeFileSync("mended", "")
    console.log(JSON.stringify([said.includes("my own"), storage.getAllJobs()]))`,
  )
  const done = await run([program], { cwd: folder, env: { PERSTACK_STORED_BASE: daemon.base } })
  assert.deepEqual(JSON.parse(done.stdout || "null"), [true, []], done.stderr)
})
