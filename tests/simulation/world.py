"""A base and its daemon on a simulated machine, from a start to a crash or a stop, with clients that store.

All decisions are the daemon's own code: journal, sessions, stores, the server's commit and answers, the
workers. The index is a real SQLite file; as its commits are not synced, a power cut takes it back to any
earlier one, or removes it.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from random import Random

from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.access.rules import AccessRules
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, STORED_NAME, DataDir, Folders
from perstack_stored.errors import ConfigError, JournalFailedError, StorageFullError
from perstack_stored.journal.reader import JournalReader
from perstack_stored.server.assembly import assemble
from perstack_stored.server.daemon import await_whole_tree
from perstack_stored.server.loop import Server
from perstack_stored.server.parts import ServerParts
from perstack_stored.startup import import_at_first_start, make_sessions, open_journal
from perstack_stored.tree.cursor import CURSOR_NAME
from tests.simulation.clients import Client, Violation
from tests.simulation.disk import File
from tests.simulation.expected import Projection
from tests.simulation.kernel import Kernel
from tests.simulation.looks import Looks, Seen
from tests.simulation.pauses import ROUNDS_MAX, letting_others_run, quiet
from tests.simulation.processes import SEGMENT_BYTES, SimulatedFollower, SimulatedKeeper, stored_in
from tests.simulation.promises import check_records, removed_records
from tests.simulation.stand_ins import CURSOR_IDS, NoReads, NoWakeup, OwnersOnly, SimulatedEndpoints
from tests.simulation.state import CrashedError, State
from tests.simulation.workload import Workload


class World(Looks):
    """One life of a daemon."""

    def __init__(self, state: State, random: Random, folder: str, workload: Workload | None = None) -> None:
        self.random = random
        self.kernel = Kernel(state.disk, random)
        self.clients, self.ledger = state.clients, state.ledger
        self.index_states = list(state.index_states)
        self.workload = workload
        self.to_make = 0  # requests that the clients will still make up
        self.answers = 0
        self.packed = self.erased = 0
        # As the settings of this life say; the numbers of the history are not touched.
        chooser = Random(str(random.getstate()[1][:4]))
        self.leave_out = chooser.choice([(), (), ("a",), ("b",), ("a", "b")])
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
        self.kernel.changed = self.look
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.before = lambda _name, _tear: None
        self.kernel.scheduler.kill_all()
        shutil.rmtree(self.base)
        if self._outer is not None:
            Kernel.current = self._outer

    @property
    def state(self) -> State:
        """What a crash now would leave, before anything is lost."""
        return State(self.kernel.disk, self.index_states, self.clients, self.ledger)

    # --- start and stop ----------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the daemon, as `Daemon.run` does, until it is ready.

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
            with letting_others_run(kernel):
                await_whole_tree(self.server, self.datadir, self.journal)
        except (OSError, ConfigError, StorageFullError, JournalFailedError) as error:
            if not kernel.faults:
                raise
            raise CrashedError(str(error)) from error
        self._check_cursor()
        if self.cursor_was_there and self._cursor().lost:
            raise Violation("the tree's cursor is torn")
        self.ready = not self.tree.fault
        if self.ready:
            self._check_ready_tree()
        for client in self.clients:
            client.must_retry = bool(client.unanswered)

    def _server(self, settings: Settings) -> Server:
        self.index, self.tree = SimulatedFollower("index", self), SimulatedFollower("tree", self)
        self.keeper = SimulatedKeeper(self)
        self.endpoints = SimulatedEndpoints(self)
        return assemble(
            ServerParts(
                base=self.base,
                journal=self.journal,
                sessions=self.sessions,
                peers=OwnersOnly(AccessRules(), RateLimiter(0, 0)),
                endpoints=self.endpoints,
                reads=NoReads(),
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
            server.finish()
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

    # --- life --------------------------------------------------------------------------------------

    def live(self, steps: int) -> None:
        """Take a number of random steps.

        Raises:
            CrashedError: an injected fault ended the daemon.
        """
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """One thing that happens."""
        random, server = self.random, self.server
        what = random.random()
        with self._may_fail():
            if what < 0.3:
                if self.to_make > 0 and len(self.ledger.acknowledged) % 2:
                    self._set_cursor()
                self._send(random.choice(self.clients))
            elif what < 0.5:
                server.commit_next()
            elif what < 0.65:
                server.collect_sync()
                self.keeper.follow()
            elif what < 0.75:
                server._projections.follow()
                self.keeper.follow()
                self._follow_erasing()
            elif what < 0.98:
                self.run_tasks(random.randint(1, 12))
            else:
                self._surprise()

    def _follow_erasing(self) -> None:
        """As `server.erasing.Erasing` does; the seed says when a segment may begin early."""
        is_pending = self.index.pending > 0
        with contextlib.suppress(OSError):
            self.journal.allow_spares(allowed=not is_pending)
        self.index.send_erased(self.keeper.erased_to)
        if is_pending and self.keeper.wants_segment and self.random.random() < 0.3:
            with contextlib.suppress(StorageFullError):
                if self.journal.begin_segment():
                    self.server._group_commit.answer_synced()

    def _send(self, client: Client) -> None:
        random = self.random
        if client.must_retry or (client.unanswered and random.random() < 0.05):
            client.must_retry = False
            for request in list(client.unanswered):
                self._deliver(client, client.frame(request))
        elif self.to_make > 0 and len(client.unanswered) < 6 and self.workload is not None:
            self.to_make -= 1
            request = client.make(self.workload, random, self.journal.mark.position)
            client.note_sent(request, self.ledger)
            if random.random() < 0.03:
                return
            self._deliver(client, client.frame(request))

    def _set_cursor(self) -> None:
        """A subscriber says that it is done with all that was acknowledged."""
        position = max(self.ledger.acknowledged)
        self.ledger.cursors_sent.add(position)
        head = {"v": 1, "op": "setCursor", "id": CURSOR_IDS + position}
        body = {"name": "subscriber", "position": position}
        self._deliver(self.clients[0], json.dumps(head).encode() + b"\n" + json.dumps(body).encode())

    def _check_cursor(self) -> None:
        """A start finds the cursor where it was acknowledged, or at a later position that was sent."""
        cursor = self.sessions.cursors.get("subscriber")
        position = 0 if cursor is None else cursor.position
        if position < self.ledger.cursor or (position and position not in self.ledger.cursors_sent):
            raise Violation(f"the cursor was acknowledged at {self.ledger.cursor}, and stands at {position}")

    def _deliver(self, client: Client, frame: bytes) -> None:
        self.endpoints.messages.append(((client.name, False), frame))
        self.server.drain()

    def _surprise(self) -> None:
        random, clock = self.random, self.kernel.clock
        which = random.randrange(5)
        if which == 0:
            clock.ms += random.choice([-3_600_000, -5_000, 60_000])
        elif which == 1:
            self.tree.stop()
        elif which == 2:
            self.index.stop()
            self.tree.stop()
        elif which == 3:
            self.keeper.stop()
        else:
            client = random.choice(self.clients)
            if client.unanswered:
                client.give_up()
        if self.kernel.fault_odds:
            self.kernel.fail_write_back(0.3)

    def run_tasks(self, calls: int) -> None:
        """Let all other threads and processes run for a while."""
        scheduler = self.kernel.scheduler
        for task in list(scheduler.tasks):
            if task in scheduler.tasks:
                scheduler.run(task, calls)

    def settle(self) -> None:
        """Until all clients have their answers, and index and tree have come to the end."""
        server = self.server
        with self._may_fail():
            for patience in range(ROUNDS_MAX):
                for client in self.clients:
                    client.must_retry |= bool(client.unanswered) and patience % 20 == 19
                    if client.must_retry:
                        self._send(client)
                while server.commit_next():
                    pass
                server.collect_sync()
                server._projections.follow()
                self.keeper.follow()
                self._follow_erasing()
                self.run_tasks(50)
                end = self.journal.mark
                if (
                    not any(client.unanswered for client in self.clients)
                    and end == self.journal.written == self.index.place == self.tree.place
                ):
                    return
        unanswered = [len(client.unanswered) for client in self.clients]
        raise Violation(
            f"no end: unanswered {unanswered}, journal {self.journal.written}, index {self.index.place}, tree"
            f" {self.tree.place} {self.tree.fault!r}"
        )

    @contextlib.contextmanager
    def _may_fail(self) -> Iterator[None]:
        try:
            yield
        except (JournalFailedError, OSError) as error:
            if not self.kernel.faults:
                raise
            raise CrashedError(str(error)) from error

    # --- the end -----------------------------------------------------------------------------------

    def check_end(self) -> None:
        """All promises, once everything has come to rest."""
        records = self.records()
        check_records(records, self.ledger)
        wanted = Projection()
        wanted.extend(records)
        tree = {path: bytes(file.data) for path, file in self._visible().items()}
        absent = {path for path in wanted.files if path not in tree and self._is_left_out(wanted, path)}
        self.left_out += len(absent)
        if tree != {path: data for path, data in wanted.files.items() if path not in absent}:
            differ = sorted(
                p for p in tree.keys() | wanted.files.keys() if tree.get(p) != wanted.files.get(p)
            )
            raise Violation(f"the tree is not what the journal says: {differ[:3]}")
        # By the setting alone: what came in this life has a file, or has none.
        for path, (position, type) in wanted.events.items():
            if (
                position > self.begun_at
                and path in wanted.files
                and (path in tree) == (type in self.leave_out)
            ):
                raise Violation(f"{path} is left out against the setting, or is not: {self.leave_out}")
        self._check_index(wanted)
        self._await_clean_cursor()
        self._await_erased()
        if self.records() != records:
            raise Violation("erasing has changed what lives")
        self._check_index(wanted)
        left = self.kernel.disk.find(STORED_NAME, "staging")
        if left is not None and not isinstance(left, File) and left.names:
            raise Violation(f"left in staging: {list(left.names)}")

    def _await_clean_cursor(self) -> None:
        """When nothing is left to do, the tree is synced, and says so."""
        for _ in range(50):
            if self._cursor()[:2] == (self.journal.mark.position, True):
                return
            self.run_tasks(20)
        raise Violation(f"at rest the tree's cursor says {self._cursor()}, at {self.journal.mark.position}")

    def _await_erased(self) -> None:
        """When nothing is left to do, nothing is left of what was deleted."""
        for _ in range(300):
            if not self.index.pending:
                break
            self.server._projections.follow()
            self.keeper.follow()
            self._follow_erasing()
            self.run_tasks(50)
        else:
            raise Violation(f"{self.index.pending} deletions are never erased")
        with quiet(self.kernel):
            reader = JournalReader(self.files, self.folders.journal)
            left = removed_records(list(stored_in(reader.entries(reader.start(), self.journal.mark))))
            reader.close()
        if left:
            raise Violation(f"position {left[0].position} is there, and counts as erased")
