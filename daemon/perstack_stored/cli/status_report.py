"""The report of `status`; as JSON it is what `--json` prints. Plain data."""

import msgspec


class Reads(msgspec.Struct):
    """Of `stats`, as all below."""

    waiting: int
    pending: int
    following: int
    failed: int
    answered: int | None = None  # older daemons don't count them


class PackedSegments(msgspec.Struct, rename="camel"):
    """Segments that are packed: their bytes before, and now."""

    segments: int = 0
    bytes: int = 0
    packed_bytes: int = 0
    fault: str = ""


class Journal(msgspec.Struct, rename="camel"):
    """Its syncs, and its packed segments."""

    syncs: int
    slow_syncs: int
    packed: PackedSegments = msgspec.field(default_factory=PackedSegments)


class Deletions(msgspec.Struct):
    """Those that are not erased, and what holds that back."""

    pending: int = 0
    fault: str = ""


class Held(msgspec.Struct):
    """Stores that wait to be written."""

    requests: int
    bytes: int


class Outbox(msgspec.Struct):
    """Clients that don't read their answers, and answers that were lost."""

    stalled: int
    dropped: int
    gone: int


class Connections(msgspec.Struct):
    """Open connections, and others by the reason of their end."""

    open: int
    accepted: int
    failed: dict[str, int]
    cut: dict[str, int]
    paused: dict[str, int]


class Projection(msgspec.Struct, rename="camel"):
    """Index or tree. Lags are None while it starts."""

    lag_records: int | None
    lag_bytes: int | None
    fault: str
    faults: int
    starts: int
    lag_seconds: float | None = None
    rebuilds: int = 0
    blocked: int = 0
    whole: bool = True


class Replication(msgspec.Struct, rename="camel"):
    """A replicated log: what is not applied of it, and why its servers can't be used."""

    enabled: bool = False
    connected: bool = False
    lag_messages: int = 0
    fault: str = ""


class Stats(msgspec.Struct, rename="camel"):
    """The part of `stats` that is shown; daemon/docs/stats.md explains it."""

    uptime_seconds: float
    position: int
    journal: Journal
    refused: dict[str, int]
    held: Held
    reads: Reads
    outbox: Outbox
    connections: Connections
    sessions: int
    index: Projection
    tree: Projection
    deletions: Deletions = msgspec.field(default_factory=Deletions)
    replication: Replication = msgspec.field(default_factory=Replication)


class Hello(msgspec.Struct):
    """The part of `hello` that is shown: version, base, and the id of the history."""

    version: str
    base: str
    store: str
    access: str = ""


class Process(msgspec.Struct, rename="camel"):
    """The process that holds the base. `started_ms` is None where /proc does not show it."""

    role: str
    pid: int
    started_ms: int | None
    is_stopped: bool


class Rates(msgspec.Struct):
    """Records stored and reads answered, each second. `reads` is None of an older daemon."""

    stores: float
    reads: float | None


class Disk(msgspec.Struct, rename="camel"):
    """Bytes and inodes. None: this user may not look, or only a walk of the tree would say."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    journal_bytes: int | None = None
    journal_files: int | None = None
    index_bytes: int | None = None
    tree_bytes: int | None = None  # known if jobs/ is a file system of its own
    tree_free_bytes: int | None = None


class Backup(msgspec.Struct, rename="camel"):
    """The newest complete backup of a folder."""

    path: str
    time_ms: int
    position: int
    store: str


class Report(msgspec.Struct, rename="camel", kw_only=True):
    """All that was found.

    Attributes:
        reason: why it is not healthy; "" if it is.
        running: whether a daemon holds the base or answers for it; None if this user can't tell.
        notes: what is worth a look, though requests are served.
        answer_seconds: how long the daemon took to answer.
    """

    base: str
    reason: str = ""
    running: bool | None = None
    healthy: bool = False
    endpoint: str = ""
    process: Process | None = None
    daemon: Hello | None = None
    answer_seconds: float | None = None
    stats: Stats | None = None
    rates: Rates | None = None
    disk: Disk | None = None
    backup: Backup | None = None
    notes: list[str] = msgspec.field(default_factory=list)
