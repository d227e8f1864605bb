"""Keys with which a user of NATS signs: a seed, or a `.creds` file, which holds a JWT of the servers' too.

A seed is Base32 of two bytes that say what the key is for, the 32 bytes of an Ed25519 key, and a CRC-16.
Signing needs the package `cryptography`, which is loaded only then.
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import NamedTuple

from perstack_stored.errors import ConfigError
from perstack_stored.process.interpreter import install_command

_SEED, _USER = 18 << 3, 20 << 3
_SEED_BYTES = 36
_CREDS = re.compile(
    r"-+BEGIN NATS USER JWT-+\s+([\w.=-]+)\s+-+END NATS USER JWT-+\s.*"
    r"-+BEGIN USER NKEY SEED-+\s+(\w+)\s+-+END USER NKEY SEED-+",
    re.DOTALL,
)


class UserKey(NamedTuple):
    """A user's key.

    Attributes:
        public: as the servers know it.
        sign: signs what a server sends for it, once for each connection.
    """

    public: str
    sign: Callable[[str], bytes]


class Credentials(NamedTuple):
    """What a `.creds` file holds."""

    jwt: bytes
    key: UserKey

    def __repr__(self) -> str:
        return f"Credentials({self.key.public})"


def parse_creds(text: str) -> Credentials:
    """Read the text of a `.creds` file.

    Raises:
        ConfigError: it can't be used. The message holds nothing of it.
    """
    found = _CREDS.search(text)
    if found is None:
        raise ConfigError("it holds no JWT of a user with the seed after it")
    return Credentials(found[1].encode(), parse_seed(found[2]))


def parse_seed(text: str) -> UserKey:
    """Read the seed of a user.

    Raises:
        ConfigError: it is none. The message holds nothing of it.
    """
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != _SEED_BYTES or _checksum(data[:-2]) != data[-2:]:
        raise ConfigError("its seed has a typing mistake: it has 58 letters and digits, and begins with SU")
    kind = (data[0] & 7) << 5 | data[1] >> 3
    if data[0] & 0xF8 != _SEED or kind != _USER:
        raise ConfigError("its seed is not that of a user, which begins with SU")
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigError(
            f"it holds a key to sign with, which needs a package more: {install_command('cryptography')}"
        ) from None
    key = Ed25519PrivateKey.from_private_bytes(data[2:-2])
    public = bytes([_USER]) + key.public_key().public_bytes_raw()
    return UserKey(
        base64.b32encode(public + _checksum(public)).decode().rstrip("="),
        lambda nonce: base64.b64encode(key.sign(nonce.encode())),
    )


def _checksum(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
