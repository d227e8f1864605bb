"""The tree: a projection of the journal to the documented folders and files, which Perstack's tools read.

Entry points: `writer.TreeWriter`, `helper.ParallelWriter` (a second process while the tree lags),
`expected_files` (what the tree should hold).

Invariants: a file is replaced in one step; the cursor never exceeds what is synced. Imports: `index`,
`journal`, `process`, `datadir`, `model`.
"""
