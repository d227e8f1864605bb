"""`backup` and `restore`: a copy of the journal up to one position, and a base made from it."""
