"""Where the daemon is found: the base folder and the endpoint that client and daemon derive alike."""

import os
import re
from collections.abc import Sequence

from perstack_storage._core.errors import EndpointError

BASE_VARIABLE = "PERSTACK_STORED_BASE"
PERSTACK_BASE_VARIABLE = "PERSTACK_STORAGE_PATH"
"""Where `perstack log` looks for the base."""
ENDPOINT_VARIABLE = "PERSTACK_STORED_ENDPOINT"
BASE_DEFAULT = "./perstack"
IPC = "ipc://"
_SEPARATOR = re.compile(r"\s*,\s*(?=[a-z]+://)")  # a path may have commas
SOCKET_PATH_BYTES_MAX = 107
"""The most that sockaddr_un takes on Linux beside the closing NUL."""


def resolve_base(base_path: str | os.PathLike[str] | None) -> str:
    """Returns the base folder: the argument, else PERSTACK_STORED_BASE, PERSTACK_STORAGE_PATH, ./perstack.

    It need not exist. The answer is absolute, with symbolic links resolved.
    """
    if base_path is not None:
        return os.path.realpath(os.fspath(base_path) or BASE_DEFAULT)
    environ = os.environ
    return os.path.realpath(environ.get(BASE_VARIABLE) or environ.get(PERSTACK_BASE_VARIABLE) or BASE_DEFAULT)


def socket_path_of(base: str) -> str:
    """Returns the path of the Unix socket that belongs to a base.

    Args:
        base: as `resolve_base` gives it.

    Raises:
        EndpointError: the path is longer than 107 bytes and XDG_RUNTIME_DIR does not help.
    """
    path = os.path.join(base, ".stored", "stored.sock")
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        # Never /tmp: where anyone may write, anyone may put a socket of that name first.
        raise EndpointError(_too_long(path, "and XDG_RUNTIME_DIR is not set"))
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, for the few whose base is that deep

    digest = hashlib.sha256(os.fsencode(base)).hexdigest()[:16]
    short = os.path.join(runtime, f"perstack-stored-{digest}.sock")
    if len(os.fsencode(short)) > SOCKET_PATH_BYTES_MAX:
        raise EndpointError(_too_long(path, f"and so is {short}"))
    return short


def resolve_endpoint(endpoint: str | None, base_path: str | os.PathLike[str] | None) -> str:
    """Returns the ZeroMQ endpoint: the argument, else PERSTACK_STORED_ENDPOINT, else the socket of the base.

    Args:
        endpoint: such as `ipc:///srv/agents/perstack/.stored/stored.sock` or `tcp://127.0.0.1:7171`.
        base_path: the base folder, as given to `resolve_base`.

    Raises:
        EndpointError: see `socket_path_of`.
    """
    chosen = endpoint or os.environ.get(ENDPOINT_VARIABLE)
    return chosen or IPC + socket_path_of(resolve_base(base_path))


def split_endpoints(text: str) -> list[str]:
    """Returns the endpoints of a text that has commas between them."""
    return _SEPARATOR.split(text)


def resolve_endpoints(
    endpoint: str | Sequence[str] | None, base_path: str | os.PathLike[str] | None
) -> tuple[str, ...]:
    """Returns the endpoints of a client: several in a sequence, or in one text with commas between them.

    Raises:
        EndpointError: see `socket_path_of`; or there is none, or one twice.
    """
    given = (endpoint,) if endpoint is None or isinstance(endpoint, str) else tuple(endpoint)
    if not given:
        raise EndpointError("an empty list of endpoints")
    found = [one for text in given for one in split_endpoints(resolve_endpoint(text, base_path))]
    if len(set(found)) < len(found):
        raise EndpointError(f"an endpoint stands twice in {','.join(found)}")
    return tuple(found)


def _too_long(path: str, reason: str) -> str:
    return (
        f"{path} is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a Unix socket may have, {reason}; "
        f"give an endpoint (argument or {ENDPOINT_VARIABLE}) to client and daemon alike"
    )
