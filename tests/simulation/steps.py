"""Steps of a simulated daemon's life: requests, commits, syncs, workers, deaths; and how it comes to rest."""

import contextlib
import json
from collections.abc import Iterator
from random import Random

from perstack_stored.errors import JournalFailedError, StorageFullError
from perstack_stored.journal.sessions import Sessions
from perstack_stored.server.loop import Server
from tests.simulation.clients import Client, Violation
from tests.simulation.looks import Looks
from tests.simulation.pauses import ROUNDS_MAX
from tests.simulation.processes import SimulatedFollower, SimulatedKeeper
from tests.simulation.readers import Readers
from tests.simulation.retiring import Retiring
from tests.simulation.stand_ins import CURSOR_IDS, SimulatedEndpoints
from tests.simulation.state import CrashedError
from tests.simulation.workload import Workload

READ_ODDS = 0.2


class Steps(Looks):
    """What happens while a daemon lives."""

    random: Random
    clients: list[Client]
    workload: Workload | None
    ready: bool
    to_make: int  # requests that the clients will still make up
    server: Server
    sessions: Sessions
    index: SimulatedFollower
    keeper: SimulatedKeeper
    endpoints: SimulatedEndpoints
    readers: Readers | None
    retiring: Retiring | None

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
            self._read(asks=what < READ_ODDS)
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
                self._look_whether_ready()
                self.keeper.follow()
                self._follow_erasing()
            elif what < 0.98:
                self.run_tasks(random.randint(1, 12))
            else:
                self._surprise()
            if self.retiring is not None:
                self.retiring.step()

    def _look_whether_ready(self) -> None:
        """When it is ready, the tree is whole."""
        if not self.ready and self.server.counters.tree_is_whole:
            self.ready = True
            if not self.tree.fault:
                self._check_ready_tree()

    def _read(self, *, asks: bool) -> None:
        """Send the reads that the index is ready for to their threads, and the answers to the readers."""
        if self.readers is None:
            return
        if self.readers.to_ask > 0 and (asks or self.readers.is_due):
            self.readers.ask()
        self.server._release_reads()
        self.server._send_read_answers()

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
                self._read(asks=True)
                server._projections.follow()
                self._look_whether_ready()
                self.keeper.follow()
                self._follow_erasing()
                if self.retiring is not None:
                    self.retiring.retire()
                self.run_tasks(50)
                end = self.journal.mark
                if (
                    not any(client.unanswered for client in self.clients)
                    and not self.readers
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
