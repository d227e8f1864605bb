// `FileSystemStorage` under its own name.

import { DaemonStorage } from "../async/client.js"

/** How Perstack's programs make a `FileSystemStorage`. */
export interface FileSystemStorageConfig {
  /** The base; else PERSTACK_STORED_BASE, PERSTACK_STORAGE_PATH, ./perstack. */
  basePath?: string | undefined
}

/** A `DaemonStorage`, made as Perstack's programs make a `FileSystemStorage`. */
export class FileSystemStorage extends DaemonStorage {
  constructor(config: FileSystemStorageConfig = {}) {
    super({ basePath: config.basePath })
  }
}
