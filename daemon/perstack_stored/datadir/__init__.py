"""The data directory: its file system, layout, lock and permissions, and what it must support.

Entry points: `filesystem.FileSystem` is the only access to the disk of journal, cursors and tree; tests
replace it by a simulated disk. `lock` keeps a second daemon or tool out.

Imports: `model`, `errors`. Every package above it may import it.
"""
