"""CURVE keys of a client, for a daemon that is reached by tcp."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from perstack_storage._core.errors import EndpointError

SERVER_KEY_VARIABLE = "PERSTACK_STORED_SERVER_KEY"
KEY_FILE_VARIABLE = "PERSTACK_STORED_KEY_FILE"
_FIELD = re.compile(r'^\s*(public-key|secret-key)\s*=\s*"([^"]{40})"\s*$', re.MULTILINE)
_KEY_CHARS = 40


@dataclass(frozen=True)
class CurveKeys:
    """What a client needs to be let in by tcp, in Z85.

    Attributes:
        server_key: the daemon's public key: no other daemon can pose as it. Of several endpoints, all
            daemons have this one.
        public_key: the client's own, which has to stand in the daemon's list of clients.
        secret_key: what proves that it is the client's own.
    """

    server_key: str
    public_key: str
    secret_key: str = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("server_key", "public_key", "secret_key"):
            if len(getattr(self, name)) != _KEY_CHARS:
                raise ValueError(f"{name} must have {_KEY_CHARS} characters of Z85")

    @classmethod
    def from_file(cls, server_key: str, path: str | os.PathLike[str]) -> "CurveKeys":
        """Returns the keys with the client's own pair from a file that `perstack-stored keygen` made.

        Raises:
            EndpointError: the file can't be read, or holds no pair.
        """
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                fields = dict(_FIELD.findall(file.read(65_536)))
        except OSError as error:
            raise EndpointError(f"can't read the key file {os.fspath(path)}: {error.strerror}") from error
        if len(fields) != 2:  # noqa: PLR2004 - a public and a secret key
            raise EndpointError(
                f"{os.fspath(path)} holds no CURVE key pair; `perstack-stored keygen` makes one"
            )
        return cls(server_key, fields["public-key"], fields["secret-key"])


def keys_of(given: CurveKeys | None, environment: Mapping[str, str] = os.environ) -> CurveKeys | None:
    """Returns the keys for tcp: those given, else those that the environment names.

    Raises:
        EndpointError: the environment names only one of the daemon's key and the client's file, or a file
            that is no key file.
    """
    if given is not None:
        return given
    server_key, path = environment.get(SERVER_KEY_VARIABLE), environment.get(KEY_FILE_VARIABLE)
    if not server_key and not path:
        return None
    if not server_key or not path:
        raise EndpointError(f"{SERVER_KEY_VARIABLE} and {KEY_FILE_VARIABLE} go together")
    try:
        return CurveKeys.from_file(server_key, path)
    except ValueError as error:
        raise EndpointError(f"{SERVER_KEY_VARIABLE}: {error}") from None
