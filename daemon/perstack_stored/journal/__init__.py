"""The journal: the append-only record of truth, as `proto/journal.md` draws it.

Entry points: `writer.JournalWriter` (one writer; a batch is one write and one fdatasync),
`reader.JournalReader`, `recovery.recover` (state after the last stop), `sessions.Sessions` (deduplication).

Invariants: a record that was acknowledged is synced; positions have no holes; what is proven to be on disk is
never cut. Imports: `datadir`, `model`.
"""
