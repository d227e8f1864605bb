"""The write path: stores are admitted, wait in the commit queue, are checked and appended in batches.

Entry point: `group_commit.GroupCommit`. Read on in this order: `commit_queue.CommitQueue`,
`large_values.LargeValueQueue`, `commit.Committer`, then `journal/writer.py`.

Invariant: an acknowledgement means that the record is on disk, once. Imports: `journal`, `protocol`.
"""
