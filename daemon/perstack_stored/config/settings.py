"""Every setting of the daemon: name, unit, bounds and default.

A setting is a key of the settings file, an environment variable and a flag of `serve`: `read_seconds` is
`read-seconds`, `PERSTACK_STORED_READ_SECONDS` and `--read-seconds`. `config/sources.py` finds the values.
"""

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from typing import Any

from perstack_storage.protocol import BASE_VARIABLE, ENDPOINT_VARIABLE
from perstack_stored.errors import ConfigError
from perstack_stored.model.event_types import EVENT_TYPES

from .mirror_url import check_endpoint, parse_url

_KIB = 1 << 10
_MIB = 1 << 20
_GIB = 1 << 30
ENVIRONMENT_PREFIX = "PERSTACK_STORED_"
# Python represents bytes that are not UTF-8 as lone surrogates in paths, arguments and the environment.
_ODD = re.compile("[\0\ud800-\udfff]")
_HISTORY = re.compile("[0-9a-f]{32}")
LOG_LEVELS = ("debug", "info", "warning", "error")
MIRROR_CHOICES = ("journal", "tree", "both")
LOG_FORMATS = ("auto", "console", "json")


def _setting(
    default: int,
    help: str,  # noqa: A002 - click's word
    least: int = 1,
    most: int = 2**40,
    *,
    kind: str = "integer",
    reloads: bool = False,
) -> Any:
    return field(
        default=default,
        metadata={"help": help, "least": least, "most": most, "kind": kind, "reloads": reloads},
    )


def _mode(default: int, help: str, least: int) -> Any:  # noqa: A002
    return _setting(default, help, least, 0o777, kind="mode")


def _choice(default: str, help: str, choices: tuple[str, ...], *, reloads: bool = False) -> Any:  # noqa: A002
    return field(
        default=default, metadata={"help": help, "kind": "choice", "choices": choices, "reloads": reloads}
    )


def _flag(help: str, *, default: bool = False) -> Any:  # noqa: A002
    return field(default=default, metadata={"help": help, "kind": "flag"})


def _word(help: str, metavar: str, environment: str | None = None, *, reloads: bool = False) -> Any:  # noqa: A002
    return field(
        default="",
        metadata={
            "help": help,
            "kind": "word",
            "metavar": metavar,
            "environment": environment,
            "reloads": reloads,
        },
    )


def _words(
    help: str,  # noqa: A002
    metavar: str,
    environment: str | None = None,
    *,
    reloads: bool = False,
    known: tuple[str, ...] = (),
) -> Any:
    return field(
        default=(),
        metadata={
            "help": help,
            "kind": "words",
            "metavar": metavar,
            "environment": environment,
            "reloads": reloads,
            "known": known,
        },
    )


@dataclass(frozen=True)
class Settings:
    """Settings of `serve`. Sizes in bytes, times in the unit of the name."""

    base_path: str = _word(
        "the base: its folder jobs/ is the tree; else PERSTACK_STORAGE_PATH, else ./perstack",
        "DIR",
        BASE_VARIABLE,
    )
    bind: tuple[str, ...] = _words(
        "where to serve; without one, the socket of the base", "ENDPOINT", ENDPOINT_VARIABLE
    )
    log_format: str = _choice(
        "auto", "format of the log; auto: readable on a terminal, JSON elsewhere", LOG_FORMATS
    )
    log_level: str = _choice("info", "messages below this level are not logged", LOG_LEVELS, reloads=True)
    metrics_bind: str = _word(
        "loopback address that serves /metrics, /healthz and /readyz by HTTP; without one, none does",
        "HOST:PORT",
    )
    allow_users: tuple[str, ...] = _words(
        "users who may connect over ipc, by name or number; with no list, all that the socket's mode lets in",
        "USER",
        reloads=True,
    )
    allow_groups: tuple[str, ...] = _words("groups whose members may connect", "GROUP", reloads=True)
    read_only_users: tuple[str, ...] = _words(
        "users who may only read, secrets masked; wins over the other lists", "USER", reloads=True
    )
    read_only_groups: tuple[str, ...] = _words("groups whose members may only read", "GROUP", reloads=True)
    delete_groups: tuple[str, ...] = _words(
        "groups whose members may delete jobs and runs; else the daemon's own user only",
        "GROUP",
        reloads=True,
    )
    journal: str = _word(
        "a replicated log that orders the records of daemons on many machines; without one, this daemon does",
        "nats://HOST[:PORT],…/STREAM",
    )
    nats_credentials: str = _word("file with the credentials of the daemon's user at the servers", "FILE")
    strict_reads: bool = _flag(
        "with a replicated log: a read sees all that any daemon has acknowledged", default=True
    )
    delete_guard_seconds: int = _setting(
        86_400, "time in which a deleted job or run refuses stores of sessions that began before", 0
    )
    curve_key: str = _word(
        "file with the daemon's key pair, for tcp; `perstack-stored keygen` makes one", "FILE"
    )
    curve_clients: str = _word(
        "list of the clients who may connect by tcp; read again at a reload", "FILE", reloads=True
    )
    insecure_tcp: bool = _flag("serve plain tcp on loopback addresses: any user of this machine may connect")
    rate_records_per_second: int = _setting(
        0, "records that one client may store in a second; 0: no limit", 0, reloads=True
    )
    rate_bytes_per_second: int = _setting(
        0, "bytes that one client may store in a second; 0: no limit", 0, reloads=True
    )
    frame_bytes_max: int = _setting(16 * _MIB, "largest message that is read", 128 * _KIB, _GIB)
    value_bytes_max: int = _setting(256 * _MIB, "largest value, sent in parts", _KIB, 2 * _GIB)
    answer_bytes: int = _setting(
        512 * _KIB, "larger answers are pulled in parts of this size", 64 * _KIB, 16 * _MIB
    )
    batch_items_max: int = _setting(1024, "stores in one message", 1, 4096)
    window_records: int = _setting(1024, "unanswered stores granted to a client", 1, 16_000)
    window_bytes: int = _setting(16 * _MIB, "unanswered bytes granted to a client", _MIB)
    commit_records_max: int = _setting(2048, "records that one sync of the journal covers", reloads=True)
    commit_bytes_max: int = _setting(
        16 * _MIB, "bytes that one sync of the journal covers", _KIB, reloads=True
    )
    drain_messages_max: int = _setting(512, "messages read from the socket at a time", reloads=True)
    held_bytes_max: int = _setting(128 * _MIB, "bytes of stores that wait to be written", _MIB, reloads=True)
    parts_bytes_max: int = _setting(512 * _MIB, "bytes of values that have come in part", _MIB)
    parts_seconds: int = _setting(30, "a value in parts is forgotten after this long without a new part")
    reads_max: int = _setting(4096, "reads that wait or are under way", reloads=True)
    follows_max: int = _setting(4096, "reads that wait for new records")
    read_seconds: int = _setting(30, "time for which the rest of a large answer is kept")
    open_reads_max: int = _setting(64, "large answers that are kept at the same time")
    open_reads_bytes_max: int = _setting(256 * _MIB, "memory of large answers that are kept", _MIB)
    listings_bytes_max: int = _setting(
        16 * _MIB, "bytes of event listings that are kept for the next read of the run", 0
    )
    outbox_bytes_max: int = _setting(
        32 * _MIB, "bytes of answers that wait for a connection that does not read", _MIB, reloads=True
    )
    unread_answers_bytes_max: int = _setting(
        _GIB, "bytes of answers that wait for all clients over ipc that do not read", _MIB, reloads=True
    )
    connections_max: int = _setting(
        60_000, "clients that are connected over ipc; fewer where the limit of descriptors leaves no more", 1
    )
    handshake_seconds: int = _setting(30, "time in which a new connection over ipc must greet", 1, 3600)
    half_frames_bytes_max: int = _setting(
        256 * _MIB, "bytes of unfinished messages over ipc; at least frame-bytes-max", _MIB
    )
    receive_queue_messages: int = _setting(16, "ZeroMQ's queue of messages from one client by tcp")
    send_queue_messages: int = _setting(16, "ZeroMQ's queue of messages to one client by tcp")
    sessions_max: int = _setting(20_000, "sessions that are remembered")
    session_seconds: int = _setting(
        600, "time for which a session is remembered at least after its last store"
    )
    segment_bytes: int = _setting(64 * _MIB, "size of a journal segment", _MIB, 4 * _GIB)
    first_segment_bytes: int = _setting(
        4 * _MIB, "size of the journal segment made at start", 64 * _KIB, _GIB
    )
    pack: bool = _flag(
        "pack complete journal segments (zstd); not worth it where the file system compresses", default=True
    )
    pack_bytes_per_second: int = _setting(
        32 * _MIB, "bytes of the journal that are packed in a second", 64 * _KIB
    )
    erase_within_seconds: int = _setting(
        3600,
        "least time between segments that are begun early, to erase in the one before",
        1,
        86_400,
        reloads=True,
    )
    tree_lag_bytes_max: int = _setting(
        512 * _MIB, "bytes of the journal that the tree may lag before stores wait for it", _MIB, reloads=True
    )
    mirror: str = _word(
        "where the journal is mirrored: a bucket, and a prefix of this base alone; needs the extra s3",
        "s3://BUCKET/PREFIX",
    )
    mirror_what: str = _choice(
        "journal",
        "what is mirrored: the journal, for a restore; the tree, as Perstack's S3 storage reads it; or both",
        MIRROR_CHOICES,
    )
    mirror_endpoint: str = _word(
        "S3 server of the mirror, if not AWS, such as https://s3.example:9000", "URL"
    )
    mirror_credentials: str = _word(
        "file with the credentials of the mirror, in AWS's format; else those of the environment or machine",
        "FILE",
    )
    follow_mirror: str = _word(
        "serve a read-only copy of this mirror; needs the extra s3", "s3://BUCKET/PREFIX"
    )
    follow_history: str = _word("of several histories in follow-mirror, the one to copy", "ID")
    retain_days: int = _setting(
        0, "days after its last record a finished job is deleted; 0: never", 0, 36_500, reloads=True
    )
    retain_failed_days: int = _setting(
        0, "the same for a job that failed; 0: as retain-days", 0, 36_500, reloads=True
    )
    retain_running_days: int = _setting(
        0, "the same for a job that has not ended; 0: never", 0, 36_500, reloads=True
    )
    retain_jobs: int = _setting(
        0, "jobs to keep: beyond them the oldest that have ended are deleted; 0: all", 0, reloads=True
    )
    retain_bytes: int = _setting(
        0, "the same by their bytes on disk, in tree and journal; 0: no limit", 0, reloads=True
    )
    retain_sweep_seconds: int = _setting(
        3600,
        "time between two sweeps of retention (at most 1,000 jobs each) and of the tree",
        1,
        86_400,
        reloads=True,
    )
    tree_leave_out: tuple[str, ...] = _words(
        "types of events that get no file in the tree from now on, such as streamReasoning; reads show them",
        "TYPE",
        known=EVENT_TYPES,
    )
    tree_keep_days: int = _setting(
        0,
        "days until a job that has ended leaves the tree; 0: it stays",
        0,
        36_500,
    )
    tree_nice: int = _setting(19, "niceness of the process that writes the tree", 0, 19)
    stop_seconds: int = _setting(
        5, "time that a stop waits at most for each of index, tree and mirrors", reloads=True
    )
    worker_silence_seconds: int = _setting(
        20, "an index or tree process without progress for this long is killed and restarted", 2, 86_400
    )
    slow_sync_ms: int = _setting(
        100, "a sync of the journal that takes longer than this is logged", reloads=True
    )
    file_mode: int = _mode(0o640, "mode of the tree's files, octal", 0o400)
    folder_mode: int = _mode(0o750, "mode of the tree's folders, octal", 0o500)
    socket_mode: int = _mode(0o660, "mode of the socket, octal", 0)

    @property
    def mirrors_journal(self) -> bool:
        """Whether there is a mirror of the journal."""
        return bool(self.mirror) and self.mirror_what != "tree"

    @property
    def mirrors_tree(self) -> bool:
        """Whether there is a mirror of the tree."""
        return bool(self.mirror) and self.mirror_what != "journal"

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, bound = getattr(self, item.name), item.metadata
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    refuse_odd(text, key_of(item))
            if bound.get("known"):
                _refuse_unknown(value, item)
            if "least" in bound and not bound["least"] <= value <= bound["most"]:
                least, most = show(item, bound["least"]), show(item, bound["most"])
                sentence = f"{key_of(item)} must be between {least} and {most}, not {show(item, value)}"
                raise ConfigError(sentence.replace('"', ""))
        if self.mirror:
            parse_url(self.mirror)
        if self.follow_mirror:
            parse_url(self.follow_mirror, "follow-mirror")
        if self.follow_history and _HISTORY.fullmatch(self.follow_history) is None:
            raise ConfigError("follow-history must be 32 hexadecimal digits, as `store` in hello")
        if self.mirror and self.follow_mirror:
            raise ConfigError("mirror has no place beside follow-mirror: a copy is not mirrored")
        check_endpoint(self.mirror_endpoint)
        if self.half_frames_bytes_max < self.frame_bytes_max:
            raise ConfigError(
                f"half-frames-bytes-max ({self.half_frames_bytes_max}) must be at least frame-bytes-max "
                f"({self.frame_bytes_max}): one message must have room"
            )


def _refuse_unknown(words: tuple[str, ...], item: "Item") -> None:
    """Refuse words that are none of those that a setting knows. The message does not repeat them."""
    known = item.metadata["known"]
    for number, word in enumerate(words, 1):
        if word not in known:
            near = difflib.get_close_matches(word, known, 1)
            more = f"did you mean {near[0]}?" if near else f"it can be {', '.join(known)}"
            raise ConfigError(
                f"{key_of(item)}: word {number} of {len(words)} is no {item.metadata['metavar'].lower()}"
                f" of event that Perstack has; {more}"
            )


def refuse_odd(text: str, name: str) -> None:
    """Refuse text that no path or name of the system may contain, or no answer to a client.

    Raises:
        ConfigError: it has a NUL, or bytes that are not UTF-8; the message does not repeat them.
    """
    odd = _ODD.search(text)
    if odd is not None:
        what = "must not have a NUL" if odd[0] == "\0" else "must be UTF-8"
        raise ConfigError(f"{name} {what}; look at its character {odd.start() + 1}")


Item = dataclasses.Field[Any]
ITEMS: dict[str, Item] = {item.name: item for item in dataclasses.fields(Settings)}


def key_of(item: Item) -> str:
    """The name of a setting in the file, and of its flag without the dashes before it."""
    return item.name.replace("_", "-")


def variable_of(item: Item) -> str:
    """The environment variable of a setting."""
    return item.metadata.get("environment") or ENVIRONMENT_PREFIX + item.name.upper()


def reloads(item: Item) -> bool:
    """Whether SIGHUP applies a new value."""
    return bool(item.metadata.get("reloads"))


def show(item: Item, value: Any) -> str:
    """A value as written in the settings file."""
    kind = item.metadata["kind"]
    if kind == "mode":
        return f'"{value:04o}"'
    if kind == "words":
        return "[" + ", ".join(_quoted(word) for word in value) + "]"
    if kind == "flag":
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    r"""A basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
