"""The workers that keep index and tree in step with the journal, each a process of its own.

Entry points: `worker` (the process), `process.Follower` (the server's side: start, feed, watch, restart),
`channel` (the line between both).

Imports: `index`, `tree`, `journal`, `process`.
"""
