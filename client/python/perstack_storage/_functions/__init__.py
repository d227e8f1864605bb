"""The storage functions of Perstack under their own names, over one default client.

Entry point: `functions`. It imports the rooms below it: `_sync`, `_wire` and `_core`.
"""
