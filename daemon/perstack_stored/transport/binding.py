"""Binds endpoints: a Unix socket, without taking a living daemon's path or destroying a file; or tcp.

A Unix socket is bound and listens under a temporary name, gets its mode, and is renamed into place.
"""

import contextlib
import ctypes
import os
import secrets
import socket
import stat

import zmq

from perstack_stored.access.curve_keys import KeyPair
from perstack_stored.errors import ConfigError, start_error

from .zap import ZAP_DOMAIN

IPC_PATH_BYTES_MAX = 107
PORT_MAX = 65_535
_SO_PASSRIGHTS = 83  # since Linux 6.16; `socket` has no name for it
_LOOPBACK = ("tcp://127.0.0.1:", "tcp://[::1]:", "tcp://localhost:")


def seed_routing_ids() -> None:
    """Make the ids that libzmq gives to peers unpredictable.

    libzmq never seeds rand() (libzmq#4633), so a peer that claims the next ids aborts the process. Call this
    before the ROUTER is made.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


def listen_ipc(path: str, mode: int) -> socket.socket:
    """Return a listening Unix socket at `path`; a stale one is replaced.

    Raises:
        ConfigError: a living daemon answers there, the path is no socket, or it can't be used.
        StartFailedError: the system lacks room, descriptors or memory at the moment.
    """
    if len(os.fsencode(path)) > IPC_PATH_BYTES_MAX:
        raise ConfigError(f"the socket's path is longer than {IPC_PATH_BYTES_MAX} bytes: {path}")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise start_error(f"can't bind ipc://{path}", error) from error
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise ConfigError(f"{path} is there and is not a socket; nothing was changed")
        if _answers(path):
            raise ConfigError(f"another process serves ipc://{path}")
    try:
        return _listening(path, mode)
    except OSError as error:
        raise start_error(f"can't bind ipc://{path}", error) from error


def _listening(path: str, mode: int) -> socket.socket:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        temporary = f".{secrets.token_hex(4)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Through the descriptor: the temporary name may be longer than the longest allowed path.
            listener.bind(f"/proc/self/fd/{folder}/{temporary}")
            os.chmod(temporary, mode, dir_fd=folder)
            take_no_descriptors(listener)
            listener.listen(1024)
            os.rename(temporary, os.path.basename(path), src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            listener.close()
            with contextlib.suppress(OSError):  # it may be missing; the first error counts
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)
    return listener


def take_no_descriptors(listener: socket.socket) -> None:
    """Refuse open files sent with a message (SCM_RIGHTS); possible from Linux 6.16 on.

    The receiving thread closes such files, and closing a TCP socket with SO_LINGER takes as long as
    the sender likes.
    """
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def _answers(path: str) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True  # a full backlog has an owner as well
    finally:
        probe.close()
    return True


def bind_tcp(
    router: zmq.Socket[bytes], endpoint: str, *, curve: KeyPair | None = None, insecure_tcp: bool = False
) -> None:
    """Bind the ROUTER to a tcp endpoint.

    Args:
        router: the socket.
        endpoint: the address.
        curve: the daemon's key pair; with it, tcp is open to the clients on the list.
        insecure_tcp: without a key pair, admit any user of this machine.

    Raises:
        ConfigError: the endpoint can't be used; the message says why.
        StartFailedError: likewise, for a reason that may pass.
    """
    if curve is not None:
        _secure(router, curve)
    elif not (insecure_tcp and endpoint.startswith(_LOOPBACK)):
        raise ConfigError(
            f"{endpoint}: tcp needs curve-key and curve-clients; or, on a loopback address and for"
            " anyone of this machine, insecure-tcp"
        )
    port = endpoint.rpartition(":")[2]
    if port.isdecimal() and int(port) > PORT_MAX:  # libzmq would bind another port
        raise ConfigError(f"can't bind {endpoint}: a port is at most {PORT_MAX}")
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        raise start_error(f"can't bind {endpoint}", error) from error


def _secure(router: zmq.Socket[bytes], pair: KeyPair) -> None:
    """Require CURVE, and a decision of the ZAP handler, for addresses bound from now on.

    With an enforced domain libzmq refuses every client while no ZAP handler answers: without it, it would
    accept any key then.
    """
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    router.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    router.setsockopt(zmq.CURVE_SERVER, 1)


def remove_socket(endpoint: str) -> None:
    """Remove the socket's file at the end."""
    if endpoint.startswith("ipc://"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(endpoint.removeprefix("ipc://"))
