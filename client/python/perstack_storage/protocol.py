"""What every program needs that speaks the protocol, the daemon as well. No socket is used here.

Codes of errors, the endpoint that belongs to a base, frames of ZMTP, the names of secrets, and the escaper of
text that is shown. The daemon imports nothing else of this package but its public client.
"""

from perstack_storage._core.errors import RETRYABLE, EndpointError, ErrorCode
from perstack_storage._core.escape import UNSAFE, escaped, escaped_lines, shell_word
from perstack_storage._core.masking import SECRET_OBJECTS, SECRETS, folded
from perstack_storage._core.zmtp_frames import GREETING_BYTES, command, greeting, metadata
from perstack_storage._wire.endpoint import (
    BASE_VARIABLE,
    ENDPOINT_VARIABLE,
    PERSTACK_BASE_VARIABLE,
    resolve_base,
    resolve_endpoint,
    split_endpoints,
)

__all__ = [
    "BASE_VARIABLE",
    "ENDPOINT_VARIABLE",
    "GREETING_BYTES",
    "PERSTACK_BASE_VARIABLE",
    "RETRYABLE",
    "SECRETS",
    "SECRET_OBJECTS",
    "UNSAFE",
    "EndpointError",
    "ErrorCode",
    "command",
    "escaped",
    "escaped_lines",
    "folded",
    "greeting",
    "metadata",
    "resolve_base",
    "resolve_endpoint",
    "shell_word",
    "split_endpoints",
]
