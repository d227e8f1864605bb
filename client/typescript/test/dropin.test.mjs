// The package stands in the place of Perstack's storage: every export is there by name, and its types fit.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"

import * as storage from "perstack-storage-client"
import { ROOT, run } from "./support.mjs"

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
