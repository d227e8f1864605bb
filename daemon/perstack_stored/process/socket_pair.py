"""A socket pair whose other end a child process inherits."""

import socket


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends: the parent's, and the one that its child process inherits. Each send is one packet."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
