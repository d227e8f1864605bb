// The package stands in the place of Perstack's storage: every export is there by name, and its types fit.

import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"

import * as storage from "perstack-storage-client"
import { Daemon, ROOT, run, temporaryFolder } from "./support.mjs"

const PACKAGE = join(ROOT, "client/typescript")

test("a program that uses every export of Perstack's storage compiles, and so does what it gives back", async () => {
  const done = await run([join(PACKAGE, "node_modules/typescript/bin/tsc"), "-p", join(PACKAGE, "test/dropin")])
  assert.deepEqual([done.code, done.stdout], [0, ""])
})

test("each value that Perstack's storage exports is there", () => {
  const text = readFileSync(join(PACKAGE, "test/dropin/shapes.ts"), "utf8")
  const [, body] = /export interface StoragePackage \{\n([^]*?)\n\}/.exec(text)
  const names = body.split("\n").map((line) => line.trim().split(":")[0])
  assert.equal(names.length, 19)
  for (const name of names) assert.equal(typeof storage[name], "function", name)
})

test("what a daemon says in its stats is what their type says, no more and no less", async (context) => {
  const daemon = await Daemon.on(context)
  const client = storage.createStorage({ basePath: daemon.base })
  const stats = await client.stats()
  await client.close()
  const folder = temporaryFolder(context)
  const index = JSON.stringify(join(PACKAGE, "dist/index.js"))
  writeFileSync(join(folder, "stats.mts"), `export const stats: import(${index}).Stats = ${JSON.stringify(stats)}`)
  const flags = ["--noEmit", "--strict", "--module", "nodenext", "--skipLibCheck"]
  const done = await run([join(PACKAGE, "node_modules/typescript/bin/tsc"), ...flags, join(folder, "stats.mts")])
  assert.deepEqual([done.code, done.stdout], [0, ""])
})
