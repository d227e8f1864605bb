"""The workers that keep index and tree in step with the journal, each in a process of its own.

Entry points: `worker` (the process), `process.ProjectionProcess` (its supervisor in the server: start, feed,
watch, restart), `channel` (the socket between both).

Invariant: a worker reads only what the server has synced, and goes on from its own cursor after any crash.
Imports: `index`, `tree`, `journal`, `process`.
"""
