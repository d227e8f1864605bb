/** The program of `worker.ts` with all that it imports but `zeromq`; `build.mjs` makes the module. */
export const WORKER_SOURCE: string
