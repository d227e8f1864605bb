"""The wire protocol: frames, values in parts, and ZMTP, as `proto/wire.md` describes them.

Invariant: bytes in, bytes out. No socket is used here. Imports: `model` and `errors`.
"""
