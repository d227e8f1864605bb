"""The transports: clients over ipc (the daemon's own ZMTP) and over tcp (libzmq with CURVE).

Entry point: `endpoints.Endpoints` joins both for the serving loop.

Invariant: every pool has a bound, and each client a share of it. Imports: `access`, `protocol`.
"""
