/** The program of `worker.ts` with all that it imports; `build.mjs` makes the module. */
export const WORKER_SOURCE: string
