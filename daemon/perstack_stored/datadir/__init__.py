"""The data directory: its file system, layout, lock and permissions, and what it must support.

Entry points: `filesystem.FileSystem` is the one door to the disk for journal, cursors and tree; a test puts a
simulated disk in its place. `lock` keeps a second daemon or tool out.

Imports: `model` and `errors`. Imported by anything above it.
"""
