"""The reads: checks arguments, and makes answers from index and journal in threads beside the loop.

Entry points: `executor.ReadExecutor`, `subscriptions.Subscriptions`, `queries.OPERATIONS`.

Invariant: memory holds a bounded piece of an answer at a time. Imports: `index`, `journal`, `protocol`.
"""
