"""A socket pair whose other end a child process gets."""

import socket


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends: the server's, and the follower's to be handed to its process."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
