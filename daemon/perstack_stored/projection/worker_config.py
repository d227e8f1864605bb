"""Configuration of a worker process."""

import msgspec

from perstack_stored.tree.blocked import BlockedRecord

SILENCE_SECONDS = 20.0


class WorkerConfig(msgspec.Struct):
    """Configuration of a worker, passed as JSON on its command line."""

    base: str
    store: str
    file_mode: int
    folder_mode: int
    nice: int
    log_json: bool
    log_level: str
    parent: int
    unnamed: bool = True  # see `datadir.layout.FileSystemFeatures`
    exchange: bool = True
    lock_fd: int = -1
    at_rest: bool = False  # no process has had the index open since the last daemon ended
    rebuild_reason: str = ""  # why the index must be rebuilt; empty if it is used as it is
    status_fd: int = -1
    silence_seconds: float = SILENCE_SECONDS
    careful_until: int = 0  # an earlier process died: take small steps up to here, and name each record
    blocked: tuple[BlockedRecord, ...] = ()  # pass over these records
    keep_days: int = 0  # how long jobs that have ended stay in the tree; 0: for ever
    sweep_seconds: int = 3600
    leave_out: tuple[str, ...] = ()  # event types that get no file in the tree
