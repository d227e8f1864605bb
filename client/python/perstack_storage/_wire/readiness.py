"""Waits for a descriptor, also where gevent or eventlet has replaced the functions of the system."""

import select
import socket
import time

READABLE, WRITABLE = 1, 4  # as poll(2) has them


def is_cooperative() -> bool:
    """Whether sockets and threads are those of gevent, eventlet or the like."""
    return socket.socket.__module__ != "socket"


def wait_ready(fd: int, events: int, seconds: float) -> bool:
    """Waits until a descriptor is ready; other green threads do their work meanwhile.

    Args:
        fd: the descriptor; -1 for none, which only takes the time.
        events: READABLE, WRITABLE or both.
        seconds: how long at most.
    """
    if fd < 0:
        time.sleep(seconds)
        return False
    # Looked up here: eventlet takes `poll` away, and both replace what they leave.
    poll = getattr(select, "poll", None)
    if poll is not None:
        poller = poll()
        poller.register(fd, events)
        return bool(poller.poll(seconds * 1000))
    readable = [fd] if events & READABLE else []
    writable = [fd] if events & WRITABLE else []
    return any(select.select(readable, writable, [], seconds))
