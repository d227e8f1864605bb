// Run settings elsewhere: through a file system or into a folder that is not the daemon's.

import { textOf } from "../core/jsonio.js"
import { randomBytes } from "node:crypto"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"

import { InvalidArgument } from "../core/errors.js"

/** Settings hold keys of APIs: not for everybody's eyes. */
const FILE_MODE = 0o640
const FOLDER_MODE = 0o750

/** What `storeRunSetting` needs of a file system; the shape is Perstack's. */
export interface FileSystem {
  existsSync: (path: string) => boolean
  mkdir: (path: string, options: { recursive: boolean }) => Promise<void>
  readFile: (path: string, encoding: BufferEncoding) => Promise<string>
  writeFile: (path: string, data: string, encoding: BufferEncoding) => Promise<void>
}

/** Tells the folder of a run. */
export type GetRunDirFn = (jobId: string, runId: string) => string

/** The file system of the operating system; files are replaced whole. */
export const DEFAULT_FILE_SYSTEM: FileSystem = {
  existsSync,
  async mkdir(path, { recursive }) {
    await fs.mkdir(path, { recursive, mode: FOLDER_MODE })
  },
  readFile: (path, encoding) => fs.readFile(path, encoding),
  async writeFile(path, data, encoding) {
    const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`
    try {
      await fs.writeFile(temporary, data, { encoding, mode: FILE_MODE, flag: "wx" })
      await fs.rename(temporary, path)
    } catch (error) {
      await fs.rm(temporary, { force: true })
      throw error
    }
  },
}

/** Writes a setting; of one that is there only `updatedAt` changes, to now. */
export async function writeSetting(setting: object, fileSystem: FileSystem, runDir: string): Promise<void> {
  const text = textOf(setting) // before anything is made
  const path = join(runDir, "run-setting.json")
  // The folder is asked for first, as the reference does; it may be there with events only.
  if (!fileSystem.existsSync(runDir) || !fileSystem.existsSync(path)) {
    await fileSystem.mkdir(runDir, { recursive: true })
    await fileSystem.writeFile(path, text, "utf-8")
    return
  }
  const found: unknown = JSON.parse(await fileSystem.readFile(path, "utf-8"))
  if (typeof found !== "object" || found === null || Array.isArray(found)) {
    throw new InvalidArgument(`${path} holds no run setting`)
  }
  await fileSystem.writeFile(path, textOf({ ...found, updatedAt: Date.now() }), "utf-8")
}
