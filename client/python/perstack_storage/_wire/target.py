"""Which daemon a client talks to, how it gets in, and how long it waits."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from perstack_storage._core.history import SharedHistory
from perstack_storage._wire.absence import Absence
from perstack_storage._wire.endpoint import ENDPOINT_VARIABLE, IPC, resolve_base, resolve_endpoints

if TYPE_CHECKING:
    from perstack_storage._wire.keys import CurveKeys

TIMEOUT_DEFAULT_S = 30.0


class Target(NamedTuple):
    """What all connections of a client share.

    Attributes:
        endpoints: of the daemon, or of daemons that share a history.
        base: what the endpoint was derived from; None where it was named.
        timeout_s: how long an answer may take.
        keys: for CURVE; None without.
        absence: what is known of a daemon that was not reached.
        history: what is known of what the daemons share.
    """

    endpoints: tuple[str, ...]
    base: str | None
    timeout_s: float
    keys: "CurveKeys | None"
    absence: Absence
    history: SharedHistory

    @property
    def endpoint(self) -> str:
        """The endpoints as one text."""
        return ",".join(self.endpoints)

    @property
    def several(self) -> bool:
        """Whether there is more than one daemon."""
        return len(self.endpoints) > 1


def target_of(
    endpoint: str | Sequence[str] | None,
    base_path: str | os.PathLike[str] | None,
    timeout_s: float,
    keys: "CurveKeys | None",
) -> Target:
    """Returns what the arguments of a client, and the environment, name.

    Raises:
        EndpointError: no endpoint can be derived from the base, or there are no such keys.
        ValueError: `timeout_s` is not positive.
    """
    if not timeout_s > 0:
        raise ValueError("timeout_s must be positive")
    named = bool(endpoint or os.environ.get(ENDPOINT_VARIABLE))
    endpoints = resolve_endpoints(endpoint, base_path)
    if all(one.startswith(IPC) for one in endpoints):
        keys = None
    else:
        from perstack_storage._wire.keys import keys_of  # noqa: PLC0415 - few agents use tcp

        keys = keys_of(keys)
    base = None if named else resolve_base(base_path)
    absence = Absence(",".join(endpoints), base)
    history = SharedHistory(several=len(endpoints) > 1)
    return Target(endpoints, base, timeout_s, keys, absence, history)
