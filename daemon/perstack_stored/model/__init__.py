"""The records: kinds, values and their checks, gaps, masking of secrets, and shares of a pool.

Invariant: bytes and plain objects only. No socket, file, clock or thread is used here, so that each function
can be tested by its arguments alone.

Imports: `errors` only. Imported by every package above it.
"""
