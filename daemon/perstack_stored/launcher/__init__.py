"""`exec`: runs a command with a daemon beside it, which the last user stops.

Imports: `datadir`, `config`, `process`; never `server`: the daemon is a process of its own.
"""
