"""Sockets: the endpoint, the keys and the connection that carries frames. It imports `_core` only.

Entry points: `wire.open_wire` and `transport.Transport`, which joins a wire to the protocol.
"""
