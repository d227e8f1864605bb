// The client's own ZMTP over a Unix socket: bytes in any pieces, other programs at the other end, connections that end.

import assert from "node:assert/strict"
import { cpSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"

import { createStorage, DaemonUnavailable, EndpointError, ProtocolError } from "perstack-storage-client"
import { command, message, OPENING, ZmtpReader } from "../dist/core/zmtp_frames.js"
import { Daemon, event, eventually, numbersOf, range, ROOT, run, temporaryFolder } from "./support.mjs"

const PACKAGE = join(ROOT, "client/typescript")
const HELLO = { window: { records: 1024, bytes: 16_777_216 }, limits: { frameBytes: 16_777_216, batchItems: 1024 } }

/** A server of raw bytes; `serve(socket, number)` is called for each connection. Returns endpoint and count. */
async function server(context, serve) {
  const path = join(temporaryFolder(context), "d.sock")
  const seen = { endpoint: `ipc://${path}`, connections: 0 }
  const open = new Set()
  const listener = createServer((socket) => {
    seen.connections += 1
    open.add(socket)
    socket.on("error", () => {})
    serve(socket, seen.connections)
  })
  await new Promise((resolve) => listener.listen(path, resolve))
  context.after(() => {
    for (const socket of open) socket.destroy()
    listener.close()
  })
  return seen
}

/** Answers each request as a daemon would, through `write`; `heard(command, body)` hears the commands. */
function answers(socket, write, heard = () => {}) {
  const reader = new ZmtpReader()
  let position = 0
  write(OPENING)
  socket.on("data", (chunk) => {
    for (const { command: name, body } of reader.take(chunk)) {
      if (name !== undefined) {
        heard(name, body)
        continue
      }
      const { id, op, items } = JSON.parse(body.toString().split("\n")[0])
      const count = items?.length ?? 1
      const stored = op.startsWith("store") ? { position: position + 1, ...(items && { count }) } : {}
      if (op.startsWith("store")) position += count
      const text = `${JSON.stringify({ v: 1, id, ok: true, ...stored })}\n${op === "hello" ? JSON.stringify(HELLO) : "{}"}`
      for (const piece of message(Buffer.from(text))) write(piece)
    }
  })
}

test("frames come out whole, however their bytes arrive", () => {
  const bodies = [0, 1, 255, 256, 65_535, 70_000, 300_000].map((size) => Buffer.alloc(size, size % 251))
  const bytes = Buffer.concat([OPENING, ...bodies.flatMap(message), command("PING", Buffer.from("12x"))])
  for (const step of [1, 2, 7, 64, 65_536, bytes.length]) {
    const reader = new ZmtpReader()
    const arrived = []
    for (let at = 0; at < bytes.length; at += step) arrived.push(...reader.take(bytes.subarray(at, at + step)))
    assert.deepEqual(arrived.map(({ command: name }) => name), ["READY", ...bodies.map(() => undefined), "PING"])
    for (const [i, body] of bodies.entries()) assert.ok(arrived[i + 1].body.equals(body), `${step} ${i}`)
    assert.equal(arrived.at(-1).body.toString(), "12x")
  }
})

test("answers that arrive byte by byte, with a PING between them, are taken", async (context) => {
  const heard = []
  const { endpoint } = await server(context, (socket) => {
    let pending = Promise.resolve()
    const slowly = (bytes) => {
      pending = pending.then(async () => {
        for (const byte of bytes) await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve))
      })
    }
    answers(socket, slowly, (name, body) => {
      heard.push([name, body.toString()])
      if (name === "READY") slowly(command("PING", Buffer.from("\0\0abc")))
    })
  })
  const storage = createStorage({ endpoint })
  const positions = await Promise.all(range(5).map((n) => storage.store("storeEvent", event("j", n))))
  assert.deepEqual(positions, range(6, 1))
  await eventually(() => heard.length === 2, "the PING is answered")
  assert.deepEqual(heard[1], ["PONG", "abc"])
  await storage.close()
})

const OTHERS = {
  "speaks HTTP": ["HTTP/1.1 400 Bad Request\r\n\r\n", /does not speak ZeroMQ/],
  "speaks ZMTP 2": [Buffer.concat([OPENING.subarray(0, 10), Buffer.from([1]), Buffer.alloc(53)]), /ZMTP 1/],
  "wants CURVE": [Buffer.concat([OPENING.subarray(0, 12), Buffer.from("CURVE"), Buffer.alloc(47)]), /mechanism "CURVE"/],
  "sends a frame without an end": [Buffer.concat([OPENING, Buffer.from([2, 255, 255, 255, 255, 255, 255, 255, 255])]), /bytes: another/],
}
for (const [name, [bytes, words]] of Object.entries(OTHERS)) {
  test(`a program that ${name} is no daemon, and calls say so at once`, async (context) => {
    const { endpoint } = await server(context, (socket) => socket.write(bytes))
    const storage = createStorage({ endpoint })
    const failed = await storage.storeEvent(event("j", 1)).catch((error) => error)
    assert.ok(failed instanceof ProtocolError, failed.stack)
    assert.match(failed.message, words)
    await storage.close()
  })
}

test("connections that end in the middle are made again, without haste, and nothing is lost", async (context) => {
  const seen = await server(context, (socket, number) => {
    if (number <= 3) socket.destroy()
    else if (number <= 6) socket.end(OPENING.subarray(0, 20 * (number - 3)))
    else if (number <= 9) socket.write(OPENING, () => socket.destroy())
    else if (number <= 10) socket.end(Buffer.concat([OPENING.subarray(0, 64), command("ERROR", Buffer.from("\x02no"))]))
    else answers(socket, (bytes) => socket.write(bytes))
  })
  const storage = createStorage({ endpoint: seen.endpoint })
  const positions = await Promise.all(range(300).map((n) => storage.store("storeEvent", event("j", n))))
  assert.deepEqual(positions, range(301, 1))
  assert.equal(seen.connections, 11)
  await storage.close()
})

test("a server that cuts every connection is not asked in haste", async (context) => {
  const seen = await server(context, (socket) => socket.write(OPENING, () => setTimeout(() => socket.destroy(), 5)))
  const storage = createStorage({ endpoint: seen.endpoint, timeoutMs: 1500 })
  await storage.storeEvent(event("j", 1)).catch(() => {})
  assert.ok(seen.connections > 2 && seen.connections < 60, `${seen.connections} connections`)
  await storage.close()
})

test("an endpoint that can be none is refused by name", async () => {
  for (const endpoint of ["ipc://", `ipc:///${"x".repeat(108)}`, "ipc:///a\0b", "nonsense"]) {
    const storage = createStorage({ endpoint })
    await assert.rejects(storage.ping(), EndpointError)
    await storage.close()
  }
})

test("where the system refuses a connection, the error says why", async (context) => {
  const file = join(temporaryFolder(context), "file")
  writeFileSync(file, "")
  for (const call of [(storage) => storage.storeEvent(event("j", 1)), (storage) => storage.getAllJobs()]) {
    const storage = createStorage({ endpoint: `ipc://${file}/d.sock`, timeoutMs: 300 })
    const failed = await call(storage).catch((error) => error)
    assert.ok(failed instanceof DaemonUnavailable, failed.stack)
    assert.match(failed.message, /within 0\.3 s \(connect ENOTDIR .*\); a daemon is started with/)
    await storage.close()
  }
})

test("an idle connection lets the process end, and the end of its daemon does no harm", { timeout: 60_000 }, async (context) => {
  const daemon = await Daemon.on(context)
  const storage = createStorage({ endpoint: daemon.endpoint })
  await storage.storeEvent(event("j", 0))
  await daemon.kill()
  await sleep(100)
  await daemon.start()
  await storage.storeEvent(event("j", 1))
  assert.deepEqual(await numbersOf(storage, "j"), [0, 1])
  await storage.close()
  const text = `
    import { createStorage } from "perstack-storage-client"
    const storage = createStorage({ endpoint: ${JSON.stringify(daemon.endpoint)} })
    console.log((await storage.getAllJobs()).length)`
  const done = await run(["--input-type=module", "-e", text], { cwd: PACKAGE })
  assert.deepEqual(done, { code: 0, signal: null, stdout: "0\n", stderr: "" })
})

test("without the package zeromq a Unix socket works, and tcp says what to install", async (context) => {
  const daemon = await Daemon.on(context)
  const folder = temporaryFolder(context)
  cpSync(join(PACKAGE, "dist"), join(folder, "dist"), { recursive: true })
  cpSync(join(PACKAGE, "package.json"), join(folder, "package.json"))
  writeFileSync(
    join(folder, "program.mjs"),
    `import * as storage from "./dist/index.js"
    const [, , base] = process.argv
    const own = new storage.FileSystemStorage({ basePath: base })
    storage.storeJob(storage.createInitialJob("j", "k"))
    const tcp = await storage.createStorage({ endpoint: "tcp://127.0.0.1:1" }).ping().catch((error) => error)
    console.log(JSON.stringify([(await own.getAllJobs()).length, tcp.name, tcp.message]))`,
  )
  const done = await run(["program.mjs", daemon.base], { cwd: folder, env: { PERSTACK_STORED_BASE: daemon.base } })
  const [jobs, name, words] = JSON.parse(done.stdout || "[]")
  assert.deepEqual([jobs, name], [1, "EndpointError"], done.stderr)
  assert.match(words, /^tcp:\/\/127\.0\.0\.1:1 needs the npm package zeromq \(npm install zeromq@6\)/)
})

test("a daemon that takes a connection and says nothing leaves stores unsent", async (context) => {
  const { endpoint } = await server(context, () => {})
  const storage = createStorage({ endpoint, timeoutMs: 300 })
  await assert.rejects(storage.storeEvent(event("j", 1)), DaemonUnavailable)
  await storage.close()
})
