"""The tree: the documented folders and files, a projection of the journal that Perstack's own tools read.

Entry points: `writer.Tree`, `helper` (a second process that writes part of the files while the tree lags),
`expected_files` (what the tree should hold).

Invariants: a file is replaced in one step; the cursor never says more than what is synced. Imports: `index`,
`journal`, `process`.
"""
