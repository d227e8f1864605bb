"""The protocol without I/O: no sockets, no threads, no clocks. Both clients drive it.

Entry points: `protocol.ClientProtocol`, `follow.Follow`, and the errors in `errors`.
It imports no other room.
"""
