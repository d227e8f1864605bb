// `perstack-storage-client/testing`: daemons of tests, and that none outlives the process that started it.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { env } from "node:process"
import { test } from "node:test"

import { createStorage } from "perstack-storage-client"
import { startDaemon } from "perstack-storage-client/testing"

import { event, eventually, numbersOf, PYTHON, ROOT, run, temporaryFolder } from "./support.mjs"

const COMMAND = [PYTHON, "-m", "perstack_stored"]
const PACKAGE = join(ROOT, "client/typescript")

/** A program in the package's folder, which finds the package by its name. */
function program(text) {
  const start = `import { startDaemon } from "perstack-storage-client/testing"
    const daemon = await startDaemon({ command: ${JSON.stringify(COMMAND)} })
    process.stdout.write(daemon.basePath + "\\n")
  `
  return ["--input-type=module", "-e", start + text]
}

/** Process ids of those whose command line names a folder: the daemon, and its index and tree. */
function processesOf(folder) {
  return readdirSync("/proc").filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "latin1").includes(folder)
    } catch {
      return false
    }
  })
}

test("a daemon of a test stores and reads, and close leaves nothing", async (context) => {
  env.PERSTACK_STORED_CONFIG = "/no/such/file" // of the person who tests
  context.after(() => delete env.PERSTACK_STORED_CONFIG)
  const daemon = await startDaemon({ command: COMMAND })
  const storage = createStorage({ endpoint: daemon.endpoint })
  await storage.storeEvent(event("j", 1))
  assert.deepEqual(await numbersOf(storage, "j"), [1])
  assert.equal((await storage.hello()).base, daemon.basePath)
  await storage.close()
  await daemon.close()
  assert.ok(!existsSync(dirname(daemon.basePath)))
  await eventually(() => processesOf(daemon.basePath).length === 0, "no process is left")
  await daemon.close()
})

test("what was acknowledged is there after a kill; a stop leaves the tree; a named base stays", async (context) => {
  const basePath = join(temporaryFolder(context), "base")
  const daemon = await startDaemon({ command: COMMAND, basePath, flags: ["--file-mode=0600"] })
  context.after(() => daemon.close())
  const storage = createStorage({ endpoint: daemon.endpoint })
  context.after(() => storage.close())
  await storage.storeEvent(event("j", 1))
  await daemon.kill()
  await daemon.start()
  await assert.rejects(daemon.start(), /started before/)
  assert.deepEqual(await numbersOf(storage, "j"), [1])
  await daemon.stop()
  assert.equal(readdirSync(join(basePath, "jobs/j/runs/r")).length, 1)
  await daemon.close()
  assert.ok(existsSync(join(basePath, ".stored")))
})

test("no process outlives a killed one that started a daemon", async () => {
  const child = spawn(process.execPath, program("setInterval(() => {}, 1000)"), { cwd: PACKAGE, stdio: ["ignore", "pipe", "inherit"] })
  const base = (await new Promise((resolve) => child.stdout.once("data", resolve))).toString().trim()
  await eventually(() => processesOf(base).length >= 3, "daemon, index and tree run")
  child.kill("SIGKILL")
  await eventually(() => processesOf(base).length === 0, "all of them end", 40_000)
})

test("a program that forgets to close it ends, and the daemon with it", async () => {
  const done = await run(program(""), { cwd: PACKAGE })
  assert.deepEqual([done.code, done.stderr], [0, ""])
  const base = done.stdout.trim()
  await eventually(() => processesOf(base).length === 0, "it ends", 40_000)
})

test("a daemon that does not start says why", async (context) => {
  const folder = temporaryFolder(context)
  const basePath = join(folder, "base")
  await assert.rejects(startDaemon({ command: COMMAND, basePath, flags: ["--nonsense"] }), /status 2[^]*--nonsense/)
  await assert.rejects(startDaemon({ command: [join(folder, "none")], basePath }), /ENOENT; install the daemon/)
})
