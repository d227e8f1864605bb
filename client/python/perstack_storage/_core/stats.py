"""The answer to `stats`, for type checkers; what each field means stands in `daemon/docs/stats.md`."""

from typing import TypedDict


class PackedStats(TypedDict):
    """Packed segments: bytes before and after; `fault`: why one can't be packed, or ""."""

    segments: int
    bytes: int
    packedBytes: int
    fault: str


class JournalStats(TypedDict):
    """The journal: where it ends, and its syncs."""

    segment: int
    offset: int
    syncs: int
    syncSeconds: float
    slowSyncs: int
    packed: PackedStats


class DeletionStats(TypedDict):
    """Deletions; `pending` are not erased yet, the oldest since `oldestSeconds`; `fault`: why not, or ""."""

    stored: int
    guards: int
    guardsEndedEarly: int
    pending: int
    oldestSeconds: int
    erasedRecords: int
    fault: str


class RetentionStats(TypedDict):
    """Retention; `fault`: why the last sweep failed, or ""; `timeMs`: the time by which ages are counted."""

    sweeps: int
    deleted: int
    candidates: int
    candidateBytes: int
    fault: str
    timeMs: int


class HeldStats(TypedDict):
    """Stores that wait to be written."""

    requests: int
    bytes: int


class ReadStats(TypedDict):
    """Reads; `following` wait for new records."""

    waiting: int
    pending: int
    following: int
    answered: int
    failed: int


class OutboxStats(TypedDict):
    """Answers that clients have not read."""

    stalled: int
    dropped: int
    gone: int


class ConnectionStats(TypedDict):
    """Connections; `failed` and `cut` by reason."""

    open: int
    accepted: int
    failed: dict[str, int]
    cut: dict[str, int]
    paused: dict[str, int]
    halfBytes: int


class CursorStats(TypedDict):
    """Named cursors: records after the one furthest back, and by name after the 100 furthest back."""

    count: int
    maxLagRecords: int
    lagRecords: dict[str, int]


class ProjectionStats(TypedDict):
    """How far index or tree are: None while it starts. `fault`: "", or what stops it."""

    position: int | None
    lagRecords: int | None
    lagBytes: int | None
    lagSeconds: float | None
    fault: str
    faults: int
    starts: int


class IndexStats(ProjectionStats):
    """The index."""

    rebuilds: int


class TreeStats(ProjectionStats):
    """The tree; `blocked`: files that can't be written.

    `whole`: False while files that an unclean stop left torn or missing are written again.
    """

    blocked: int
    whole: bool


class ReplicationStats(TypedDict):
    """A journal that daemons share: `sequence` is the last message of the log that is applied.

    `fault` says why its servers can't be reached, or refuse messages; "" otherwise.
    """

    enabled: bool
    sequence: int
    lagMessages: int
    connected: bool
    fault: str
    inFlight: int
    resent: int
    heldReads: int


class MirrorStats(TypedDict):
    """The copy in a bucket, of the journal or the tree.

    `position` and lags of records and bytes are None while its end is not known.
    """

    enabled: bool
    position: int | None
    lagRecords: int | None
    lagBytes: int | None
    lagSeconds: float
    pieces: int
    bytes: int
    packedBytes: int
    replaced: int
    toReplace: int
    fault: str
    faults: int
    starts: int


class CopyStats(TypedDict):
    """A daemon that serves a copy of a mirror. `checkedSeconds`: since the bucket answered last."""

    enabled: bool
    position: int | None
    checkedSeconds: float | None
    fault: str
    faults: int


class Stats(TypedDict):
    """Counters and gauges of a daemon; counters begin with its start. A newer one may have more fields.

    `stored` is by operation, `refused` by code.
    """

    position: int
    uptimeSeconds: float
    sessions: int
    cursors: CursorStats
    messages: int
    journal: JournalStats
    stored: dict[str, int]
    repeated: int
    deletions: DeletionStats
    retention: RetentionStats
    refused: dict[str, int]
    held: HeldStats
    partsBytes: int
    reads: ReadStats
    outbox: OutboxStats
    connections: ConnectionStats
    index: IndexStats
    tree: TreeStats
    replication: ReplicationStats
    mirror: MirrorStats
    treeMirror: MirrorStats
    copy: CopyStats
