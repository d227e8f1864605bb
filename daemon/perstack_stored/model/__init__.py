"""The records: kinds, values and their checks, gaps, masking of secrets, and shares of a pool.

Invariant: bytes and plain objects only. It uses no socket, file, clock or thread, so that each function
can be tested by its arguments alone.

Imports: `errors` only. Every package above it may import it.
"""
