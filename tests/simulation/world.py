"""A base and its daemon on a simulated machine, from a start to a crash or a stop, with clients that store.

All decisions are the daemon's own code: journal, sessions, stores, the server's commit and answers, the
workers. The index is a real SQLite file; as its commits are not synced, a power cut takes it back to any
earlier one, or removes it.
"""

import os
import shutil
from random import Random

from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.access.rules import AccessRules
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, STORED_NAME, DataDir, Folders
from perstack_stored.errors import ConfigError, JournalFailedError, StorageFullError
from perstack_stored.journal import segment_file
from perstack_stored.journal.segment_file import CACHE_BYTES_MAX, BlockCache
from perstack_stored.server.assembly import assemble
from perstack_stored.server.daemon import await_whole_tree
from perstack_stored.server.loop import Server
from perstack_stored.server.parts import ServerParts
from perstack_stored.startup import import_at_first_start, make_sessions, open_journal
from perstack_stored.tree.cursor import CURSOR_NAME
from tests.simulation.clients import Violation
from tests.simulation.expected import Projection
from tests.simulation.kernel import Kernel
from tests.simulation.looks import Seen
from tests.simulation.pauses import ROUNDS_MAX, letting_others_run
from tests.simulation.processes import SEGMENT_BYTES, SimulatedFollower, SimulatedKeeper
from tests.simulation.readers import Readers
from tests.simulation.rest import Rest
from tests.simulation.retiring import Retiring
from tests.simulation.stand_ins import NoReads, NoWakeup, OwnersOnly, SimulatedEndpoints
from tests.simulation.state import Besides, CrashedError, State
from tests.simulation.workload import Workload


class World(Rest):
    """One life of a daemon."""

    def __init__(
        self,
        state: State,
        random: Random,
        folder: str,
        workload: Workload | None = None,
        besides: Besides = Besides(),  # noqa: B008 - it can't be changed
    ) -> None:
        self.random = random
        self.kernel = Kernel(state.disk, random)
        self.clients, self.ledger = state.clients, state.ledger
        self.index_states = list(state.index_states)
        self.workload = workload
        self.to_make = 0  # requests that the clients will still make up
        self.answers = 0
        self.reads, self.seed_of_reads = besides.reads, str(random.getstate()[1][:4])
        self.readers: Readers | None = None
        self.packed = self.erased = 0
        # As the settings of this life say; the numbers of the history are not touched.
        chooser = Random(str(random.getstate()[1][:4]))
        self.leave_out = chooser.choice([(), (), ("a",), ("b",), ("a", "b")])
        self.ages_jobs = besides.ages_jobs
        self.keep_days = chooser.choice([0, 1, 1])
        self.awaits_tree = chooser.random() < 0.6
        self.retires, self.retiring = besides.retires, None
        self.jobs_left = self.retired = self.asked = self.written_back = 0
        self.left_out = 0  # files that were found to be missing by the settings
        self.begun_at = 0  # the last position that the life before has left
        self.store = b""
        # What readers were shown before is on disk, so it is what the tree may hold.
        self.projection = Projection()
        self.shown = len(self.ledger.seen)
        self.projection.extend(self.ledger.seen[position] for position in sorted(self.ledger.seen))
        self.ready = False
        self.looks = 0
        self._last_seen = {
            path: Seen(f.number, f.version, bytes(f.data)) for path, f in self._visible().items()
        }
        os.makedirs(os.path.join(folder, ".stored"))
        self.base = folder
        self.index_path = os.path.join(folder, ".stored", INDEX_NAME)
        if self.index_states[-1] is not None:
            with open(self.index_path, "wb") as file:
                file.write(self.index_states[-1])
        self.cursor_was_there = state.disk.find(STORED_NAME, CURSOR_NAME) is not None
        self._outer: Kernel | None = None

    def __enter__(self) -> "World":
        self._outer = getattr(Kernel, "current", None)
        Kernel.current = self.kernel
        # The blocks that this machine has unpacked: those of a crash tried beside it are none of its own.
        self._outer_blocks, segment_file._cache = segment_file._cache, BlockCache(CACHE_BYTES_MAX)
        self.kernel.changed = self.look
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.before = lambda _name, _tear: None
        self.kernel.scheduler.kill_all()
        if self.readers is not None:
            self.readers.reads.abandon()
        shutil.rmtree(self.base)
        segment_file._cache = self._outer_blocks
        if self._outer is not None:
            Kernel.current = self._outer

    @property
    def state(self) -> State:
        """What a crash now would leave, before anything is lost."""
        return State(self.kernel.disk, self.index_states, self.clients, self.ledger)

    # --- start and stop ----------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the daemon, as `Daemon.run` does: mostly until it is ready, else until it serves.

        Raises:
            CrashedError: an injected fault made the start fail.
        """
        kernel = self.kernel
        disk = kernel.disk
        self.files = FileSystem()
        settings = Settings()
        for name in ("segment_bytes", "first_segment_bytes"):
            object.__setattr__(settings, name, SEGMENT_BYTES)
        self.folders = Folders(
            kernel.new_fd(disk.root),
            kernel.new_fd(disk.folder(STORED_NAME)),
            kernel.new_fd(disk.folder(STORED_NAME, "journal")),
        )
        self.datadir = DataDir(self.base, self.files, self.folders)
        self.sessions = make_sessions(settings)
        try:
            self.journal = open_journal(self.datadir, self.sessions, settings)
            self.store = self.journal.store
            self.ledger.starts.add(self.journal.written.position)
            import_at_first_start(self.datadir, self.journal)
            self.begun_at = self.journal.mark.position
            self.server = self._server(settings)
            self.index.start()
            await_whole_tree(self.server, self.datadir, self.journal)
            if self.awaits_tree:
                with letting_others_run(kernel):
                    self._await_tree()
        except (OSError, ConfigError, StorageFullError, JournalFailedError) as error:
            if not kernel.faults:
                raise
            raise CrashedError(str(error)) from error
        self._check_cursor()
        if self.cursor_was_there and self._cursor().lost:
            raise Violation("the tree's cursor is torn")
        self._look_whether_ready()
        for client in self.clients:
            client.must_retry = bool(client.unanswered)

    def _await_tree(self) -> None:
        while not self.server.counters.tree_is_whole:
            self.server._projections.follow()
            self.kernel.clock.sleep(0.005)

    def _server(self, settings: Settings) -> Server:
        self.index, self.tree = SimulatedFollower("index", self), SimulatedFollower("tree", self)
        self.keeper = SimulatedKeeper(self)
        if self.retires:
            self.retiring = Retiring(self, settings, Random(f"retiring {self.seed_of_reads}"))
        self.endpoints = SimulatedEndpoints(self)
        if self.reads:
            self.readers = Readers(self, Random(self.seed_of_reads), self.reads)
        return assemble(
            ServerParts(
                base=self.base,
                journal=self.journal,
                sessions=self.sessions,
                peers=OwnersOnly(AccessRules(), RateLimiter(0, 0)),
                endpoints=self.endpoints,
                reads=NoReads() if self.readers is None else self.readers.reads,
                projections=(self.index, self.tree),
                wakeup=NoWakeup(),
                settings=settings,
                read_settings=lambda: settings,
            )
        )

    def stop(self) -> None:
        """A clean stop, as `Daemon._stop` does it."""
        server = self.server
        with self._may_fail():
            with letting_others_run(self.kernel):
                server.finish()
            if self.readers is not None:
                self.readers.reads.stop()
            if server._group_commit.has_unanswered:
                raise Violation("a stop leaves stores that had arrived without an answer")
            self.keeper.stop()
            self.journal.close()
            self.index.send(self.journal.mark)
            self.index.finish()
            self._wait_for(self.index)
            if self.index.place == self.journal.mark:
                if not self.tree.running:
                    self.tree.start()
                self.tree.send(self.index.place)
            self.tree.finish()
            self._wait_for(self.tree)
        # Unless the time for a stop was up before they had come to the end.
        in_time = not self.kernel.faults and self.tree.place == self.journal.mark
        if in_time and self._cursor()[:2] != (self.journal.mark.position, True):
            raise Violation(f"after a clean stop the tree's cursor says {self._cursor()}")

    def _wait_for(self, follower: SimulatedFollower) -> None:
        for _ in range(ROUNDS_MAX):
            if follower.ended:
                return
            self.run_tasks(20)
        raise Violation(f"the {follower.kind} does not end")
