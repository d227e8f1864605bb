"""Every bound and choice of the daemon, by name and unit. A setting is a flag and an environment variable."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError

_KIB = 1 << 10
_MIB = 1 << 20
_GIB = 1 << 30
ENVIRONMENT_PREFIX = "PERSTACK_STORED_"


def _setting(default: Any, help: str, least: int = 1, most: int = 2**40) -> Any:  # noqa: A002 - click's word
    return field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True)
class Settings:
    """Settings of `serve`. Sizes in bytes, times in the unit of the name."""

    frame_bytes_max: int = _setting(16 * _MIB, "largest message that is read", 128 * _KIB, _GIB)
    value_bytes_max: int = _setting(256 * _MIB, "largest value, sent in parts", _KIB, 2 * _GIB)
    answer_bytes: int = _setting(
        4 * _MIB, "larger answers are pulled in parts of this size", 64 * _KIB, 16 * _MIB
    )
    batch_items_max: int = _setting(1024, "stores in one message", 1, 4096)
    window_records: int = _setting(1024, "unanswered stores granted to a client", 1, 16_000)
    window_bytes: int = _setting(16 * _MIB, "unanswered bytes granted to a client", _MIB)
    commit_records_max: int = _setting(2048, "records that one sync of the journal covers")
    commit_bytes_max: int = _setting(16 * _MIB, "bytes that one sync of the journal covers", _KIB)
    drain_messages_max: int = _setting(512, "messages read from the socket at a time")
    held_bytes_max: int = _setting(128 * _MIB, "stores that wait while the tree lags too far", _MIB)
    parts_bytes_max: int = _setting(512 * _MIB, "values that are coming in parts", _MIB)
    parts_seconds: int = _setting(30, "a value in parts is forgotten after such a silence")
    reads_max: int = _setting(4096, "reads that wait")
    follows_max: int = _setting(4096, "reads that wait for new records")
    read_seconds: int = _setting(30, "the rest of a large answer is kept so long")
    open_reads_max: int = _setting(64, "large answers that are kept at a time")
    outbox_bytes_max: int = _setting(32 * _MIB, "answers that wait for one client that does not read", _MIB)
    receive_queue_messages: int = _setting(16, "ZeroMQ's queue of messages from one client")
    send_queue_messages: int = _setting(16, "ZeroMQ's queue of messages to one client")
    sessions_max: int = _setting(20_000, "sessions that are remembered")
    session_seconds: int = _setting(600, "a session is remembered at least so long")
    segment_bytes: int = _setting(64 * _MIB, "size of a journal segment", _MIB, 4 * _GIB)
    first_segment_bytes: int = _setting(
        4 * _MIB, "size of the journal segment made at start", 64 * _KIB, _GIB
    )
    tree_lag_bytes_max: int = _setting(512 * _MIB, "the tree may lag so far before stores are slowed", _MIB)
    tree_nice: int = _setting(19, "niceness of the process that writes the tree", 0, 19)
    stop_seconds: int = _setting(5, "a stop takes no longer than this")
    slow_sync_ms: int = _setting(100, "a sync of the journal that takes longer is logged")
    file_mode: int = _setting(0o640, "mode of the tree's files, octal", 0o400, 0o777)
    folder_mode: int = _setting(0o750, "mode of the tree's folders, octal", 0o500, 0o777)
    socket_mode: int = _setting(0o660, "mode of the socket, octal", 0, 0o777)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, bound = getattr(self, item.name), item.metadata
            if not bound["least"] <= value <= bound["most"]:
                raise ConfigError(
                    f"{item.name} must be between {bound['least']} and {bound['most']}, not {value}"
                )
