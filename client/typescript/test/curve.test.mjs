// Over tcp: a key that is on the daemon's list is let in; any other learns only that nobody answers it.

import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { test } from "node:test"

import {
  closeSharedClient,
  createStorage,
  DaemonUnavailable,
  defaultStoreEvent,
  Forbidden,
  getEventContents,
} from "perstack-storage-client"
import { Daemon, event, PYTHON, run, setting, temporaryFolder } from "./support.mjs"

/** Makes a key pair: the line for the daemon's list, and the two keys. */
async function keygen(folder, name, ...flags) {
  const file = join(folder, `${name}.key`)
  const made = await run(["-m", "perstack_stored", "keygen", "--name", name, ...flags, file], { command: PYTHON })
  assert.equal(made.code, 0, made.stderr)
  const text = readFileSync(file, "utf8")
  const [publicKey, secretKey] = ["public-key", "secret-key"].map(
    (field) => new RegExp(`${field}\\s*=\\s*"([^"]{40})"`).exec(text)[1],
  )
  return { line: made.stdout, file, publicKey, secretKey }
}

async function freePort() {
  const server = createServer()
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

test("the environment names the keys", async (context) => {
  const folder = temporaryFolder(context)
  const [own, writer] = [await keygen(folder, "daemon"), await keygen(folder, "writer")]
  const list = join(folder, "clients")
  writeFileSync(list, writer.line)
  const endpoint = `tcp://127.0.0.1:${await freePort()}`
  const flags = ["--bind", endpoint, "--curve-key", own.file, "--curve-clients", list]
  const daemon = new Daemon(join(folder, "perstack"), flags)
  context.after(() => daemon.kill())
  await daemon.start()
  const names = ["SERVER_KEY", "KEY_FILE", "ENDPOINT"].map((name) => `PERSTACK_STORED_${name}`)
  const before = names.map((name) => process.env[name])
  context.after(() => names.forEach((name, i) => setVariable(name, before[i])))
  const [serverKey, keyFile, endpointName] = names
  const refused = (pattern) => assert.throws(() => createStorage({ endpoint }), pattern)
  setVariable(serverKey, own.publicKey)
  setVariable(keyFile, undefined)
  refused({ name: "EndpointError", message: /go together/ })
  createStorage({ endpoint: "ipc:///nowhere/x" }) // needs no keys
  setVariable(keyFile, list)
  refused({ name: "EndpointError", message: /no CURVE key pair/ })
  setVariable(keyFile, join(folder, "none"))
  refused({ name: "EndpointError", message: /can't read the key file/ })
  setVariable(keyFile, writer.file)
  setVariable(serverKey, "short")
  refused({ name: "EndpointError", message: /SERVER_KEY must have 40 characters/ })
  setVariable(serverKey, own.publicKey)
  const storage = createStorage({ endpoint })
  await storage.storeEvent(event("j", 1))
  await storage.close()
  setVariable(endpointName, endpoint)
  await defaultStoreEvent(event("j", 2)) // of the shared client, in its thread
  assert.equal((await getEventContents("j", "r")).length, 2)
  await closeSharedClient()
})

function setVariable(name, value) {
  if (value === undefined) delete process.env[name]
  else process.env[name] = value
}

test("a listed key stores and reads, one for reading only reads, a stranger is not answered", async (context) => {
  let daemon
  context.after(() => daemon?.kill())
  const folder = temporaryFolder(context)
  const [own, writer, reader, stranger] = [
    await keygen(folder, "daemon"),
    await keygen(folder, "writer"),
    await keygen(folder, "reader", "--read-only"),
    await keygen(folder, "stranger"),
  ]
  const list = join(folder, "clients")
  writeFileSync(list, writer.line + reader.line)
  const endpoint = `tcp://127.0.0.1:${await freePort()}`
  const flags = ["--bind", endpoint, "--curve-key", own.file, "--curve-clients", list]
  daemon = await new Daemon(join(folder, "perstack"), flags).start()
  const open = (pair, serverKey = own.publicKey, timeoutMs = 30_000) =>
    createStorage({ endpoint, timeoutMs, keys: { serverKey, publicKey: pair.publicKey, secretKey: pair.secretKey } })
  const storages = [open(writer), open(reader), open(stranger, own.publicKey, 1500), open(writer, stranger.publicKey, 1500)]
  const [writing, reading, strange, misled] = storages
  await writing.storeEvent(event("j", 1))
  await writing.storeRunSetting(setting("j"))
  assert.equal((await reading.getEventsByRun("j", "r")).length, 1)
  assert.ok(!JSON.stringify(await reading.getAllRuns()).includes('"secret"'))
  await assert.rejects(reading.storeEvent(event("j", 2)), Forbidden)
  for (const storage of [strange, misled]) {
    await assert.rejects(storage.storeEvent(event("j", 3)), (error) => {
      assert.ok(error instanceof DaemonUnavailable)
      assert.match(error.message, /does not let ours in/)
      for (const { secretKey } of [writer, stranger]) assert.ok(!error.message.includes(secretKey))
      return true
    })
  }
  assert.equal((await writing.getEventsByRun("j", "r")).length, 1)
  for (const storage of storages) await storage.close()
})
