"""The transports: clients over ipc (our own ZMTP) and over tcp (libzmq with CURVE).

Entry points: `endpoints.Doors` is what the serving loop sees of both.

Invariant: every pool has a bound, and each client a share of it. Imports: `access`, `protocol`.
"""
