"""The mirror: a process that ships the journal to a bucket in S3, in pieces that are never replaced.

Entry points: `process.MirrorProcess` starts and watches it, in the server; `worker` is the process;
`shipper.Shipper` decides what is shipped next; `replacer.Replacer` replaces what was erased in; `pieces` and
`generations` are the format; `bucket` speaks to S3.

Only bytes that are synced are shipped, in order, so the pieces of a bucket are always the beginning of the
history. An ack never waits for the bucket. A piece is created, never replaced: where one is there, its bytes
are compared, and a mirror that finds other bytes stops.

Imports: journal, datadir, config, process, observe. Imported by server and offline.
"""
