"""Which daemon a client talks to, how it gets in, and how long it waits."""

import os
from typing import TYPE_CHECKING, NamedTuple

from perstack_storage._wire.absence import Absence
from perstack_storage._wire.endpoint import ENDPOINT_VARIABLE, IPC, resolve_base, resolve_endpoint

if TYPE_CHECKING:
    from perstack_storage._wire.keys import CurveKeys

TIMEOUT_DEFAULT_S = 30.0


class Target(NamedTuple):
    """What all connections of a client share.

    Attributes:
        endpoint: of the daemon.
        base: what the endpoint was derived from; None where it was named.
        timeout_s: how long an answer may take.
        keys: for CURVE; None without.
        absence: what is known of a daemon that was not reached.
    """

    endpoint: str
    base: str | None
    timeout_s: float
    keys: "CurveKeys | None"
    absence: Absence


def target_of(
    endpoint: str | None, base_path: str | os.PathLike[str] | None, timeout_s: float, keys: "CurveKeys | None"
) -> Target:
    """Returns what the arguments of a client, and the environment, name.

    Raises:
        EndpointError: no endpoint can be derived from the base, or there are no such keys.
        ValueError: `timeout_s` is not positive.
    """
    if not timeout_s > 0:
        raise ValueError("timeout_s must be positive")
    named = bool(endpoint or os.environ.get(ENDPOINT_VARIABLE))
    resolved = resolve_endpoint(endpoint, base_path)
    if resolved.startswith(IPC):
        keys = None
    else:
        from perstack_storage._wire.keys import keys_of  # noqa: PLC0415 - few agents use tcp

        keys = keys_of(keys)
    base = None if named else resolve_base(base_path)
    return Target(resolved, base, timeout_s, keys, Absence(resolved, base))
