"""The index: an SQLite projection of the journal that maps ids and positions to addresses of values.

Entry points: `writer.IndexWriter`, `connection.connect` (for reads), `event_reader` (events in their orders),
`value_lookup` (values by address).

Invariant: it can be rebuilt from the journal at any time, and a damaged page is noticed. Imports: `journal`,
`process`, `datadir`, `model`.
"""
