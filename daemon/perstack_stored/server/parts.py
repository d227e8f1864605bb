"""The parts that a server joins, as it sees them. The simulation puts its own in the place of some."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from perstack_stored.access.peers import Peers
from perstack_stored.config.settings import Settings
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.observe.counters import LoopCounters, ProjectionStatus, RequestCounter
from perstack_stored.observe.systemd import Notifier
from perstack_stored.protocol.messages import Message, Reply, ReplySink, RoutingId
from perstack_stored.read.requests import ReadRequest
from perstack_stored.read.waiting import Reads


class ServerEndpoints(ReplySink, Protocol):
    """All listeners, and the loop's sleep: `transport.endpoints.Endpoints`."""

    def watch(self, fd: int) -> None:
        """End a wait when this descriptor becomes readable."""

    def unwatch(self, fd: int) -> None:
        """Undo `watch`."""

    def wait(self, seconds: float) -> set[int] | None:
        """Sleep until something happens. Returns the watched ones that are readable; None: nothing did."""

    def take(self, limit: int, bytes_max: int) -> list[Message]:
        """Return what has arrived, by each transport at most so much."""

    def retry(self) -> bool:
        """Try again what found no room. Returns whether there was such."""

    def on_tick(self, now: float) -> None:
        """Look after timeouts; called about each second."""

    def apply_settings(self, settings: Settings) -> None:
        """Use other bounds from now on."""

    def answers(self) -> dict[str, int]:
        """Count clients that don't read, and answers that were not sent."""

    def connections(self) -> dict[str, Any]:
        """Count connections."""


class LongPolls(Protocol):
    """Reads that wait for new records: `read.subscriptions.Subscriptions`."""

    def __len__(self) -> int: ...

    def add(self, request: ReadRequest) -> ReadRequest | None:
        """Let a read wait. Returns one that gives way to it."""

    def on_indexed(self, position: int) -> None:
        """The index has come so far."""

    def release(self) -> list[ReadRequest]:
        """Give back all that wait."""


class ReadFaults(Protocol):
    """What reads found wrong."""

    def index_damage(self) -> str:
        """Return what is wrong with the index, once; empty if nothing is."""


class ServerReads(Reads, Protocol):
    """Runs reads beside the loop: `read.executor.ReadExecutor`."""

    index_is_readable: bool

    @property
    def pending(self) -> int:
        """Reads that are under way."""

    @property
    def failed(self) -> int:
        """Reads that met a fault of the daemon."""

    @property
    def answered(self) -> bool:
        """Whether there are answers to take."""

    @property
    def long_polls(self) -> LongPolls:
        """Reads that wait for new records."""

    @property
    def faults(self) -> ReadFaults:
        """What reads found wrong."""

    @property
    def counters(self) -> list[RequestCounter]:
        """Requests by thread."""

    def admit(self, client: str, reads_max: int) -> None:
        """Count a read that came in, until it is answered; raises Refusal (BUSY)."""

    def take_replies(self) -> list[Reply]:
        """Return answers that are ready."""

    def refused(self) -> dict[str, int]:
        """Count reads that were answered with an error, by code."""

    def left(self, peer: RoutingId) -> None:
        """A connection has ended."""

    def index_started(self) -> None:
        """The index can be read."""

    def index_stopped(self) -> None:
        """The index may be built again; nothing is read of it for now."""


class Projection(ProjectionStatus, Protocol):
    """A worker process, as the server sees it: `projection.process.ProjectionProcess`."""

    @property
    def place(self) -> LogPosition | None:
        """How far it has come; None until its first report."""

    @property
    def sent(self) -> LogPosition | None:
        """The newest log position that it was sent."""

    @property
    def heard(self) -> float:
        """When its last report came, a monotonic time."""

    @property
    def fault(self) -> str:
        """Why it can't go on; empty if it can."""

    @property
    def faults(self) -> int:
        """How often something stopped it."""

    @property
    def starts(self) -> int:
        """How often it was started."""

    @property
    def rebuilds(self) -> int:
        """How often it was built again."""

    @property
    def blocked(self) -> int:
        """Files that it can't write."""

    @property
    def out_of_space(self) -> bool:
        """Whether it lacks room on the disk."""

    def start(self) -> None:
        """Start the process."""

    def stop(self) -> None:
        """End it at once."""

    def send(self, mark: LogPosition) -> None:
        """Say up to where the journal is synced."""

    def receive(self) -> bool:
        """Take in reports. Returns whether the process is gone."""

    def reap(self) -> int:
        """Clean up after a process that is gone, and plan its next start. Returns its exit status."""

    def due(self) -> bool:
        """Whether it is time to start it again."""

    def rebuild_index(self, reason: str) -> None:
        """Let the next process build the index again."""

    def fileno(self) -> int | None:
        """Return the descriptor to poll, None if the process does not run."""


class Wakeup(Protocol):
    """Ends the loop's sleep from outside: `transport.wakeup.WakeupPipe`."""

    @property
    def fd(self) -> int:
        """Becomes readable."""

    def wake(self) -> None:
        """Make it readable. Safe from any thread."""

    def clear(self) -> None:
        """Make it unreadable again."""


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What a server is built of.

    Attributes:
        base: path of the data directory.
        projections: index and tree.
        read_settings: reads the settings again, and returns those in force.
        counters: what the loop counts; metrics look at it.
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
