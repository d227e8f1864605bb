"""A journal that many daemons share: a replicated log orders all stores, each daemon applies all of it.

Entry point: `group_commit.ReplicatedGroupCommit`. Read on in this order: `publication.py` (checks before
a store goes into the log), `message.py` (its bytes there), `stream.py` (the seam to the engine), `apply.py`
(which stores count, from the log alone).

Invariants: what a store comes to depends on the log only, never on a clock, a setting or a client of this
daemon; a message of the log is applied once, in order, and none is skipped. Imports: `store`, `journal`.
"""
