"""Protocols of the parts that a server joins. The simulation implements some of them itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from perstack_stored.access.peers import Peers
from perstack_stored.config.settings import Settings
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.keeper.channel import JournalState
from perstack_stored.observe.counters import LoopCounters, ProjectionStatus, RequestCounter
from perstack_stored.observe.systemd import Notifier
from perstack_stored.protocol.messages import Message, Reply, ReplySink, RoutingId
from perstack_stored.read.requests import ReadRequest
from perstack_stored.read.waiting import Reads
from perstack_stored.replication.setup import Replication

from .copying import Copying, NoCopying
from .retention import NoRetention, Retention


class ServerEndpoints(ReplySink, Protocol):
    """All listeners, and the loop's sleep: `transport.endpoints.Endpoints`."""

    def watch(self, fd: int) -> None:
        """End a wait when this descriptor becomes readable."""

    def unwatch(self, fd: int) -> None:
        """Undo `watch`."""

    def wait(self, seconds: float) -> set[int] | None:
        """Sleep until something happens. Returns the readable descriptors; None if nothing happened."""

    def take(self, limit: int, bytes_max: int) -> list[Message]:
        """Return requests that arrived, at most this many from each transport."""

    def retry(self) -> bool:
        """Retry sends that found no room. Returns whether there were any."""

    def on_tick(self, now: float) -> None:
        """Handle timeouts; called about once a second."""

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed bounds."""

    def answers(self) -> dict[str, int]:
        """Count clients that don't read their answers, and answers that were not sent."""

    def connections(self) -> dict[str, Any]:
        """Count connections."""


class LongPolls(Protocol):
    """Subscriptions, reads that wait for new records: `read.subscriptions.Subscriptions`."""

    def __len__(self) -> int: ...

    def add(self, request: ReadRequest) -> ReadRequest | None:
        """Add a read that waits. Returns a read that gives way to it, if any."""

    def on_indexed(self, position: int) -> None:
        """Note that the index reached a position."""

    def release(self) -> list[ReadRequest]:
        """Return all reads that wait, to be answered at the stop."""


class ReadFaults(Protocol):
    """Faults that reads found."""

    def index_damage(self) -> str:
        """Return what is wrong with the index, once; empty if nothing is."""


class ServerReads(Reads, Protocol):
    """Runs reads beside the loop: `read.executor.ReadExecutor`."""

    index_is_readable: bool

    @property
    def pending(self) -> int:
        """Count reads that are in progress."""

    @property
    def failed(self) -> int:
        """Count reads that failed by a fault of the daemon."""

    @property
    def answered(self) -> bool:
        """Whether answers are ready."""

    @property
    def long_polls(self) -> LongPolls:
        """The subscriptions."""

    @property
    def faults(self) -> ReadFaults:
        """Faults that reads found."""

    @property
    def counters(self) -> list[RequestCounter]:
        """Request counters, one per thread."""

    def admit(self, client: str, reads_max: int) -> None:
        """Count a read until it is answered; raises Refusal (BUSY)."""

    def take_replies(self) -> list[Reply]:
        """Return answers that are ready."""

    def refused(self) -> dict[str, int]:
        """Count reads that were refused, by error code."""

    def left(self, peer: RoutingId) -> None:
        """Free what is kept for a connection that ended."""

    def index_started(self) -> None:
        """Note that the index can be read."""

    def index_stopped(self) -> None:
        """Stop reading the index, which may be rebuilt."""


class Projection(ProjectionStatus, Protocol):
    """A worker process, as the server sees it: `projection.process.ProjectionProcess`."""

    @property
    def place(self) -> LogPosition | None:
        """Log position that it reached; None until its first report."""

    @property
    def sent(self) -> LogPosition | None:
        """The newest log position that it was sent."""

    @property
    def heard(self) -> float:
        """Monotonic time of its last report."""

    @property
    def fault(self) -> str:
        """The fault that stops it; empty if none does."""

    @property
    def faults(self) -> int:
        """How often a fault stopped it."""

    @property
    def starts(self) -> int:
        """How often it was started."""

    @property
    def rebuilds(self) -> int:
        """How often it was rebuilt."""

    @property
    def blocked(self) -> int:
        """Files that it can't write."""

    @property
    def out_of_space(self) -> bool:
        """Whether the disk has no room for it."""

    @property
    def pending(self) -> int:
        """Deletions that are not erased."""

    @property
    def oldest_ms(self) -> int:
        """Time of the oldest of these."""

    def send_erased(self, position: int) -> None:
        """Send the position up to which deletions are erased."""

    def send_aged(self, time_ms: int) -> None:
        """Send the time in ms by which ages are counted."""

    def start(self) -> None:
        """Start the process."""

    def stop(self) -> None:
        """Kill the process."""

    def send(self, mark: LogPosition) -> None:
        """Send the log position up to which the journal is synced."""

    def receive(self) -> bool:
        """Collect reports. Returns whether the process has ended."""

    def reap(self) -> int:
        """Collect the exit status of a process that ended, return it, and schedule the next start."""

    def due(self) -> bool:
        """Whether it is time to start it again."""

    def rebuild_index(self, reason: str) -> None:
        """Let the next process rebuild the index."""

    def fileno(self) -> int | None:
        """Return the descriptor to poll, None if the process is not running."""


class Keeper(Protocol):
    """Packs complete segments, and erases in them: `keeper.process.KeeperProcess`."""

    def follow(self, state: JournalState) -> None:
        """Collect reports, and tell the state of the journal; called about once a second."""

    @property
    def erased_to(self) -> int:
        """All deletions up to this position are erased in the journal; 0 if none were."""

    @property
    def erased_records(self) -> int:
        """Records that were erased since the start; a copy of one counts too."""

    @property
    def wants_segment(self) -> bool:
        """Whether the open segment holds something to erase."""

    @property
    def erase_fault(self) -> str:
        """Why a deletion can't be erased until somebody acts; empty if nothing is wrong."""

    def describe(self) -> dict[str, Any]:
        """Return its state for `stats`."""


class NoKeeper:
    """A keeper that packs and erases nothing."""

    erased_to = erased_records = 0
    wants_segment = False
    erase_fault = ""

    def follow(self, state: JournalState) -> None:
        """Do nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the state of a journal that is not packed."""
        return {"segments": 0, "bytes": 0, "packedBytes": 0, "fault": ""}


class Mirror(Protocol):
    """Ships the journal to a bucket: `mirror.process.MirrorProcess`."""

    @property
    def place(self) -> LogPosition | None:
        """Log position up to which the bucket holds the journal; None while it is not known."""

    def follow(self, mark: LogPosition) -> None:
        """Collect reports, and tell the synced log position; called about once a second."""

    def describe(self) -> dict[str, Any]:
        """Return its state for `stats`, but for how far it is."""

    def lag_seconds(self) -> float:
        """Age of the oldest record that is not in the bucket."""

    def finish(self, mark: LogPosition, seconds: float) -> None:
        """Ship up to a log position, if that takes no longer, and end."""

    def stop(self) -> None:
        """End at once."""


class NoMirror:
    """A mirror where there is none."""

    place: LogPosition | None = None

    def follow(self, mark: LogPosition) -> None:
        """Do nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the state of no mirror."""
        return {
            "enabled": False,
            "pieces": 0,
            "bytes": 0,
            "packedBytes": 0,
            "replaced": 0,
            "toReplace": 0,
            "fault": "",
            "faults": 0,
            "starts": 0,
        }

    def lag_seconds(self) -> float:
        """Return 0: nothing waits."""
        return 0.0

    def finish(self, mark: LogPosition, seconds: float) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class Wakeup(Protocol):
    """Ends the loop's sleep from another thread: `transport.wakeup.WakeupPipe`."""

    @property
    def fd(self) -> int:
        """Descriptor that becomes readable."""

    def wake(self) -> None:
        """Make it readable. May be called from any thread."""

    def clear(self) -> None:
        """Make it unreadable again."""


@dataclass(frozen=True, slots=True)
class ServerParts:
    """The parts that a server is built from.

    Attributes:
        base: path of the data directory.
        projections: index and tree.
        read_settings: reads the settings file again, and returns the settings in force.
        counters: what the loop counts; metrics read it.
        keeper: packs complete segments, and erases in them.
        retention: deletes the jobs that the settings don't keep.
        mirror: ships the journal to a bucket.
        tree_mirror: ships the tree to a bucket.
        copying: appends what was fetched from a bucket, in a daemon that serves a copy.
        replication: the log that this daemon shares with others, if it does.
    """

    base: str
    journal: JournalWriter
    sessions: Sessions
    peers: Peers
    endpoints: ServerEndpoints
    reads: ServerReads
    projections: Sequence[Projection]
    wakeup: Wakeup
    settings: Settings
    read_settings: Callable[[], Settings]
    notifier: Notifier = field(default_factory=Notifier)
    counters: LoopCounters = field(default_factory=LoopCounters)
    keeper: Keeper = field(default_factory=NoKeeper)
    retention: Retention | NoRetention = field(default_factory=NoRetention)
    mirror: Mirror = field(default_factory=NoMirror)
    tree_mirror: Mirror = field(default_factory=NoMirror)
    copying: Copying | NoCopying = field(default_factory=NoCopying)
    replication: Replication | None = None
