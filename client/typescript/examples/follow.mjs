// Subscribes to new records: prints each one as it is stored, from the position that the last run ended at.
// Ends when nothing new has come for as many seconds as the argument says; without one, never.

import { existsSync, readFileSync, writeFileSync } from "node:fs"

import { createStorage } from "perstack-storage-client"

/** Position and epoch of the last record, and the history that they belong to. */
const KEPT = "follow-state.json"

const idleMs = process.argv[2] === undefined ? Infinity : Number(process.argv[2]) * 1000
let kept = existsSync(KEPT) ? JSON.parse(readFileSync(KEPT, "utf8")) : {}

const storage = createStorage()
kept.store ??= (await storage.hello()).store
for await (const { position, epoch, op, value } of storage.follow({ ...kept, idleMs })) {
  console.log(position, op, value.id)
  kept = { ...kept, after: position, epoch }
  writeFileSync(KEPT, JSON.stringify(kept)) // after the work is done: each record is handled at least once
}
await storage.close()
