"""CURVE keys in files: key pairs, and the list of clients that may connect. A secret key is never shown.

A key pair is a ZeroMQ certificate, as zmq.auth and CZMQ write it. The list has a line for each client:
its name, `read-only`, `read-write` or `read-write-delete`, and its public key; `#` begins a comment line.
"""

import enum
import os
import re
import stat
from typing import NamedTuple

import zmq

from perstack_storage.protocol import shell_word
from perstack_stored.errors import ConfigError, start_error

KEY_CHARS = 40
_LIST_BYTES_MAX = 16 << 20
_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_FIELD = re.compile(r'^\s*(public-key|secret-key)\s*=\s*"([^"]*)"\s*$', re.MULTILINE)
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._@:-]{0,63}")
NAME_RULE = "a name has letters, digits and . _ @ : - only, at most 64"


class Access(enum.IntEnum):
    """What a client may do; each includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    DELETE = 3


ACCESS_NAMES = {
    "read-only": Access.READ,
    "read-write": Access.WRITE,
    "read-write-delete": Access.DELETE,
}
_ACCESS_WORDS = "read-only, read-write or read-write-delete"


class KeyPair(NamedTuple):
    """A CURVE key pair in Z85."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


class ListedClient(NamedTuple):
    """A client that may connect."""

    name: str
    access: Access


def is_name(text: str) -> bool:
    """Whether a text may be a client's name in the list."""
    return _NAME.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether a text has the form of a public or secret key."""
    return _KEY.fullmatch(text) is not None


def generate(path: str) -> KeyPair:
    """Generate a key pair, and write it to a new file that only its owner can read.

    Raises:
        ConfigError: the path exists, or the file can't be written.
    """
    pair = KeyPair(*zmq.curve_keypair())
    text = (
        "# A CURVE key pair of perstack-stored. Keep it secret: it gives your access.\n"
        f'curve\n    public-key = "{pair.public.decode()}"\n    secret-key = "{pair.secret.decode()}"\n'
    )
    before = os.umask(0o077)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise start_error(f"can't make the key file {path}", error) from error
    finally:
        os.umask(before)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise start_error(f"can't write the key file {path}", error) from error
    return pair


def load(path: str) -> KeyPair:
    """Load the key pair of a file.

    Raises:
        ConfigError: it can't be read, others may read it, or it holds no pair.
        StartFailedError: it can't be read at the moment.
    """
    try:
        with open(path, encoding="ascii", errors="strict") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LIST_BYTES_MAX)
    except OSError as error:
        raise start_error(f"can't read the key file {_shown(path)}", error) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no key file") from None
    if mode & stat.S_IRWXO:
        raise ConfigError(f"others may read the key file {path}; deny it: chmod o= {shell_word(path)}")
    fields = dict(_FIELD.findall(text))
    public, secret = fields.get("public-key", ""), fields.get("secret-key", "")
    if not is_key(public) or not is_key(secret):
        raise ConfigError(f"{path} holds no CURVE key pair; `perstack-stored keygen` makes one")
    if zmq.curve_public(secret.encode()) != public.encode():
        raise ConfigError(f"the keys in {path} are no pair")
    return KeyPair(public.encode(), secret.encode())


def load_clients(path: str) -> dict[str, ListedClient]:
    """Load the clients that may connect, by public key.

    Raises:
        ConfigError: the list can't be read, or has an invalid line; none of it is used.
        StartFailedError: it can't be read at the moment.
    """
    try:
        with open(path, encoding="utf-8", errors="strict") as file:
            lines = file.read(_LIST_BYTES_MAX).splitlines()
    except OSError as error:
        raise start_error(f"can't read the list of clients {_shown(path)}", error) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no list of clients") from None
    clients: dict[str, ListedClient] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(words) != 3:  # noqa: PLR2004 - name, access, key
            raise ConfigError(f"{where}: a client is a name, {_ACCESS_WORDS}, and a public key")
        name, access, key = words
        if not is_name(name):
            raise ConfigError(f"{where}: {NAME_RULE}")
        if access not in ACCESS_NAMES:
            raise ConfigError(f"{where}: the second word is {_ACCESS_WORDS}")
        if not is_key(key):
            raise ConfigError(f"{where}: the third word is a public key, {KEY_CHARS} characters of Z85")
        if key in clients:
            raise ConfigError(f"{where}: this key stands in the list twice")
        clients[key] = ListedClient(name, ACCESS_NAMES[access])
    return clients


def _shown(path: str) -> str:
    """A path for a message, unless it is a key given instead of a path."""
    return "(a key stands where the name of its file should)" if is_key(path) else path
