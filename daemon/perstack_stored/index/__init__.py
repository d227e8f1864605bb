"""The index: an SQLite projection of the journal that says where each value stands.

Entry points: `writer.Index`, `writer.connect` (for reads), `value_lookup` (values by their address).

Invariant: it can be rebuilt from the journal at any time, and a damaged page is noticed. Imports: `journal`.
"""
