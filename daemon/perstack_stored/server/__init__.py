"""The serving process: the loop, dispatch of requests, coordination of the workers, status, start and stop.

Entry points: `daemon.Daemon` starts and stops everything; `assembly.assemble` builds a `loop.Server`.

Invariant: one thread owns sockets, journal and sessions. Imports: all packages below; only `cli` imports it.
"""
