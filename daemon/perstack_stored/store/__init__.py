"""The write path: stores are admitted, wait in the commit queue, are checked and appended in batches.

Entry points: `commit_queue.HeldStores`, `commit.Stores`, `large_values.Apart`. Read them in this order, then
`journal/writer.py`.

Invariant: an acknowledgement means that the record is on disk, once. Imports: `journal`, `access`, `process`.
"""
