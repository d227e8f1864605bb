"""Sockets: the endpoint, the keys and the connection that carries frames. It imports `_core` only.

Entry points: `client.ClientBase`, and `transport.Transport`, which joins a wire to the protocol.
"""
