"""The keeper: a process of low priority that packs the journal's complete segments, and erases in them.

Entry points: `process.KeeperProcess` starts and watches it, in the server; `worker` is the process;
`pack.pack_segment` replaces one segment; `eraser.Eraser` finds what must be erased, and
`erase.erase_segment` does it.

A kill or a power cut at any point leaves the old segment or the new one under its name; of packing, both hold
the same logical bytes. The keeper never delays the loop: it reports, and the loop asks once a second.

Imports: index, tree, journal, datadir, process, observe. Imported by server.
"""
