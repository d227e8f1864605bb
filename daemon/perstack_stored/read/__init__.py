"""The reads: arguments are checked, answers made from index and journal in threads beside the loop.

Entry points: `executor.ReadExecutor`, `subscriptions.Subscriptions` (long polls), `queries.OPERATIONS`.

Invariant: an answer is never longer in memory than a bounded piece. Imports: `index`, `journal`, `access`.
"""
