"""Credentials from a file in AWS's format, which is read again every few minutes.

Its section `default` holds `aws_access_key_id`, `aws_secret_access_key`, and `aws_session_token` if there is
one.
"""

import configparser
import os
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from perstack_stored.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import S3Credential

_KEEP = timedelta(minutes=5)
_PROFILE = "default"
_FILE_BYTES_MAX = 64 << 10


class CredentialsFile:
    """The credentials in a file. Its secrets are in no message."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)

    def __call__(self) -> "S3Credential":
        """Read the file.

        Raises:
            ConfigError: it can't be read, others may read it, or it lacks a key.
        """
        values = self._read()
        try:
            credential: S3Credential = {
                "access_key_id": values["aws_access_key_id"],
                "secret_access_key": values["aws_secret_access_key"],
                "expires_at": datetime.now(UTC) + _KEEP,
            }
        except KeyError as error:
            raise ConfigError(f"{self._path} has no {error.args[0]} under [{_PROFILE}]") from None
        token = values.get("aws_session_token")
        if token:
            credential["token"] = token
        return credential

    def _read(self) -> dict[str, str]:
        try:
            with open(self._path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_FILE_BYTES_MAX)
        except OSError as error:
            raise ConfigError(f"can't read the credentials {self._path}: {error.strerror}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"others may read the credentials {self._path}: chmod 600")
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(data.decode())
        except (configparser.Error, UnicodeDecodeError):  # their messages repeat lines
            raise ConfigError(f"{self._path} is no file of credentials") from None
        return dict(parser[_PROFILE]) if parser.has_section(_PROFILE) else {}
