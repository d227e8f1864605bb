"""`backup` and `restore`: copies the journal up to one position, and makes a base from a copy.

`generations` keeps several backups in one folder.
"""
