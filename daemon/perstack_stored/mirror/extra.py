"""The package that speaks to S3 is an extra: who does not mirror needs none."""

import importlib.util

from perstack_stored.errors import ConfigError
from perstack_stored.process.interpreter import install_command

_LIBRARY = "obstore"
_REQUIREMENT = "obstore>=0.12,<0.13"


def require_library() -> None:
    """Raise ConfigError if the package is not there; the message says what to install."""
    if importlib.util.find_spec(_LIBRARY) is None:
        raise ConfigError(
            f"a mirror needs the package {_LIBRARY}: install the extra perstack-stored[s3], or type"
            f" {install_command(_REQUIREMENT)}"
        )
