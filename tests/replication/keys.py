"""Keys and JWTs as NATS has them, made here: an operator, its accounts, and a user with a `.creds` file."""

import base64
import binascii
import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3
_SEED = 18 << 3


class Key:
    """A new key of an operator, account or user."""

    def __init__(self, kind: int) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public = _base32(bytes([kind]) + self._key.public_key().public_bytes_raw())
        head = bytes([_SEED | kind >> 5, (kind & 31) << 3])
        self.seed = _base32(head + self._key.private_bytes_raw())

    def jwt(self, subject: str, name: str, **claims: Any) -> str:
        """A JWT that this key signs."""
        body = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {**claims, "version": 2},
        }
        digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        text = f"{_url64(json.dumps({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_url64(json.dumps(body))}"
        return f"{text}.{_url64(self._key.sign(text.encode()))}"


class Operator:
    """An operator with a system account, and one account with JetStream."""

    def __init__(self) -> None:
        self._key = Key(OPERATOR)
        self._account = Key(ACCOUNT)

    def config(self) -> str:
        """For a server's configuration."""
        system = Key(ACCOUNT)
        every = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        disk = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        limits = {**every, "wildcards": True}
        return f"""
            operator: {self._key.jwt(self._key.public, "tests", type="operator")}
            system_account: {system.public}
            resolver: MEMORY
            resolver_preload: {{
                {system.public}: {self._key.jwt(system.public, "SYS", type="account", limits=limits)}
                {self._account.public}: {
            self._key.jwt(self._account.public, "agents", type="account", limits={**limits, **disk})
        }
            }}
        """

    def creds(self) -> tuple[str, str]:
        """The text of a `.creds` file of a new user, and its seed."""
        key = Key(USER)
        jwt = self._account.jwt(key.public, "daemon", type="user", subs=-1, data=-1, payload=-1)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
        ), key.seed


def _base32(data: bytes) -> str:
    checked = data + binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _url64(data: str | bytes) -> str:
    raw = data if isinstance(data, bytes) else data.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
