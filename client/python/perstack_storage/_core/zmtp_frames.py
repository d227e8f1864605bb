"""The bytes of ZMTP 3.1 that client and daemon share: greeting, commands and flags of a frame. No I/O."""

import struct

GREETING_BYTES = 64
MORE, LONG, COMMAND = 1, 2, 4
"""Flags of a frame."""


def greeting() -> bytes:
    """What each side says first: ZMTP 3.1, without security."""
    signature = b"\xff" + bytes(8) + b"\x7f"
    return (signature + b"\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0").ljust(GREETING_BYTES, b"\0")


def command(name: bytes, data: bytes) -> bytes:
    """A command, framed; at most 255 bytes with its name."""
    body = bytes((len(name),)) + name + data
    return bytes((COMMAND, len(body))) + body


def metadata(name: bytes, value: bytes) -> bytes:
    """A property of a READY."""
    return bytes((len(name),)) + name + struct.pack(">I", len(value)) + value
