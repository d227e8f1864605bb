"""The wire protocol as in `proto/wire.md`: `frames`, values in parts (`multipart`), and ZMTP (`zmtp`).

Invariant: bytes in, bytes out. No socket is used here. Imports: `model` and `errors`.
"""
