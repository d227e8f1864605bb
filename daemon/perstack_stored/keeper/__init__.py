"""The keeper: a process of low priority that packs the journal's complete segments, one at a time.

Entry points: `process.KeeperProcess` starts and watches it, in the server; `worker` is the process;
`pack.pack_segment` replaces one segment.

A kill or a power cut at any point leaves the plain segment or the packed one under its name, and both hold
the same logical bytes. The keeper never delays the loop: it reports, and the loop asks once a second.

Imports: journal, datadir, process, observe. Imported by server.
"""
