"""What a worker process is started with."""

import msgspec

from perstack_stored.tree.blocked import BlockedRecord

SILENCE_SECONDS = 20.0


class WorkerConfig(msgspec.Struct):
    """What a follower is told on its command line, as JSON."""

    base: str
    store: str
    file_mode: int
    folder_mode: int
    nice: int
    log_json: bool
    log_level: str
    parent: int
    unnamed: bool = True  # see `tree.Ways`
    exchange: bool = True
    lock_fd: int = -1
    at_rest: bool = False  # nobody has had the index open since the last daemon ended
    rebuild_reason: str = ""  # why the index is not to be used, but made anew
    status_fd: int = -1
    silence_seconds: float = SILENCE_SECONDS
    careful_until: int = 0  # the process before died: small steps up to here, each record named
    blocked: tuple[BlockedRecord, ...] = ()  # to be passed over from now on
