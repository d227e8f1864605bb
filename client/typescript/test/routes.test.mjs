// Each way by which a program of Perstack's gets this package in the place of Perstack's storage, without a change to it.

import assert from "node:assert/strict"
import { cpSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { pathToFileURL } from "node:url"

import { createStorage } from "perstack-storage-client"
import { Daemon, ROOT, run, Shared, temporaryFolder } from "./support.mjs"

const PACKAGE = join(ROOT, "client/typescript")
const BIN = join(PACKAGE, "node_modules/.bin")
const REGISTER = pathToFileURL(join(PACKAGE, "dist/register.js")).href
/** Uses the class and the functions, synchronous ones too; `as` is TypeScript, `id` tells the routes apart. */
const PROGRAM = `import { createInitialJob, defaultStoreEvent, FileSystemStorage, getAllJobs, storeJob } from "NAME"
const id: string = process.argv[2] as string
storeJob(createInitialJob(id, "expert"))
const event = { id: "e", type: "startRun", expertKey: "k", timestamp: 1, stepNumber: 0, jobId: id, runId: "r" }
await defaultStoreEvent(event)
const read = await new FileSystemStorage({ basePath: process.cwd() + "/perstack" }).getEventsByRun(id, "r")
console.log(JSON.stringify([getAllJobs().some((job: { id: string }) => job.id === id), read.length]))
`
const NAMES = ["@perstack/filesystem-storage", "@perstack/storage"]

const shared = new Shared()
let folder, daemon
before(async () => {
  folder = temporaryFolder(shared)
  shared.after(() => daemon?.kill())
  daemon = await new Daemon(join(folder, "perstack")).start()
  writeFileSync(join(folder, "package.json"), '{"type":"module","private":true}')
})
after(() => shared.end())

function source(name, type = "ts") {
  const file = join(folder, `from-${name.replace(/\W/g, "-")}.${type}`)
  const text = PROGRAM.replace("NAME", name)
  writeFileSync(file, type === "ts" ? text : text.replace(/: string|: \{ id: string \}| as string/g, ""))
  return file
}

/** Runs a command with a new job's id as its last argument, and sees that the daemon has what it stored. */
async function stores(id, args, options = {}) {
  const done = await run([...args, id], { cwd: folder, ...options })
  assert.deepEqual([done.code, done.stdout], [0, "[true,1]\n"], done.stderr)
  const storage = createStorage({ endpoint: daemon.endpoint })
  assert.equal((await storage.retrieveJob(id))?.id, id)
  await storage.close()
}

for (const name of NAMES) {
  test(`${name}, from source with tsx and --import`, async () => {
    const environment = { NODE_OPTIONS: `--import=${REGISTER}` }
    await stores(`tsx-import-${name.length}`, [source(name)], { command: join(BIN, "tsx"), env: environment })
  })

  test(`${name}, from source with tsx and paths`, async () => {
    const paths = Object.fromEntries(NAMES.map((one) => [one, [join(PACKAGE, "dist/index.js")]]))
    const config = join(folder, "tsconfig.paths.json")
    writeFileSync(config, JSON.stringify({ compilerOptions: { module: "NodeNext", paths } }))
    await stores(`tsx-paths-${name.length}`, ["--tsconfig", config, source(name)], { command: join(BIN, "tsx") })
  })

  test(`${name}, with node and --import`, async () => {
    await stores(`node-import-${name.length}`, ["--import", REGISTER, source(name, "mjs")])
  })

  test(`${name}, bundled into one file by esbuild with an alias`, async () => {
    const bundle = join(temporaryFolder(shared), "bundle.mjs")
    const built = await run(
      [
        source(name),
        `--alias:${name}=${join(PACKAGE, "dist/index.js")}`,
        "--bundle",
        "--platform=node",
        "--format=esm",
        `--outfile=${bundle}`,
      ],
      { command: join(BIN, "esbuild"), cwd: folder },
    )
    assert.equal(built.code, 0, built.stderr)
    const file = join(folder, `bundle-${name.length}.mjs`)
    cpSync(bundle, file)
    await stores(`esbuild-${name.length}`, [file])
  })
}

test("a package of npm that asks for Perstack's storage gets this one by an override", async (context) => {
  const packed = await run(["pack", "--silent", "--ignore-scripts", "--pack-destination", folder], {
    command: "npm",
    cwd: PACKAGE,
  })
  assert.equal(packed.code, 0, packed.stderr)
  const tarball = `file:${join(folder, packed.stdout.trim())}`
  const app = temporaryFolder(context)
  const agent = join(app, "agent")
  mkdirSync(agent)
  const versions = Object.fromEntries(NAMES.map((name) => [name, "^0.0.1"]))
  const manifest = { name: "agent", version: "1.0.0", type: "module", exports: "./index.mjs" }
  writeFileSync(join(agent, "package.json"), JSON.stringify({ ...manifest, dependencies: versions }))
  writeFileSync(join(agent, "index.mjs"), `export * from "${NAMES[0]}"`)
  const overrides = Object.fromEntries(NAMES.map((name) => [name, tarball]))
  const dependencies = { agent: "file:./agent", ...overrides }
  writeFileSync(join(app, "package.json"), JSON.stringify({ private: true, type: "module", dependencies, overrides }))
  const installed = await run(["install", "--no-audit", "--no-fund", "--loglevel=error", "--install-links"], {
    command: "npm",
    cwd: app,
  })
  assert.equal(installed.code, 0, installed.stderr)
  for (const name of ["agent", ...NAMES]) {
    cpSync(source(name, "mjs"), join(app, "program.mjs"))
    await stores(`npm-${name.length}`, [join(app, "program.mjs")])
  }
})
