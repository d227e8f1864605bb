// `node --import perstack-storage-client/register`: imports of Perstack's storage resolve to this package.

import { register } from "node:module"

const NAMES = ["@perstack/filesystem-storage", "@perstack/storage"]

/** A hook of Node's loader. As a text it needs no file, and runs in the loader's own thread. */
const HOOK = `
  const names = new Set(${JSON.stringify(NAMES)})
  const url = ${JSON.stringify(new URL("./index.js", import.meta.url).href)}
  export const resolve = (name, context, next) => names.has(name) ? { url, shortCircuit: true } : next(name, context)`

register(`data:text/javascript,${encodeURIComponent(HOOK)}`)
