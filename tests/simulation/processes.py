"""The worker processes of a simulated machine: the daemon's own code, on a line without a socket."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, cast

from perstack_stored.datadir.background_sync import BackgroundSync
from perstack_stored.errors import DamageError, IndexUnusableError, TreeUnsyncedError
from perstack_stored.index.connection import connect, read_cursor, remove
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import record_places
from perstack_stored.journal.preallocation import SPARE_NAME
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_file import open_segment
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.keeper.channel import JournalState, KeeperEnd
from perstack_stored.keeper.eraser import Eraser
from perstack_stored.keeper.pack import Options, Pace, pack_segment, remove_left_overs
from perstack_stored.projection.channel import Report
from perstack_stored.projection.index_projection import IndexProjection
from perstack_stored.projection.tree_projection import TreeProjection
from perstack_stored.projection.worker import follow
from perstack_stored.tree import left_out
from perstack_stored.tree.helper import Slice
from perstack_stored.tree.options import TreeOptions
from perstack_stored.tree.sweep import Sweep, SweepOptions
from perstack_stored.tree.writer import TreeWriter
from tests.simulation.clients import Violation
from tests.simulation.expected import Stored
from tests.simulation.kernel import Kernel
from tests.simulation.tasks import Task

if TYPE_CHECKING:
    from tests.simulation.world import World

SEGMENT_BYTES = 8192
_NO_PACE = Pace(lambda _size: None, lambda _size: None)
_EXPECTED = (OSError, sqlite3.Error, IndexUnusableError, TreeUnsyncedError)
WAIT_SECONDS_MAX = 0.3


def stored_in(entries: Iterable[Entry]) -> Iterator[Stored]:
    """The records of entries."""
    for entry in entries:
        head = entry.header
        for i, place in enumerate(record_places(entry.data, head)):
            payload = bytes(entry.data[place.start : place.start + place.length])
            seq = head.seq + i if head.seq else 0
            yield Stored(head.position + i, head.session, seq, place.kind, place.flags, head.time_ms, payload)


class WatchedIndex(IndexProjection):
    """The index; what it takes up is what readers are shown."""

    def __init__(self, path: str, reader: JournalReader, store: bytes, world: "World") -> None:
        super().__init__(path, reader, store)
        self._world = world

    def start(self, reader: JournalReader, mark: LogPosition) -> LogPosition:
        """Readers can see what is there already."""
        place = super().start(reader, mark)
        until = LogPosition(place.position, place.segment, place.offset)
        self._world.show(stored_in(reader.entries(reader.start(), until)))
        self._world.note_index()
        return place

    def apply(self, entries: list[Entry]) -> None:
        """Take up entries; the seed may say that the database fails."""
        kernel = self._world.kernel
        if kernel.fault_odds and kernel.random.random() < kernel.fault_odds:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        super().apply(entries)
        self._world.show(stored_in(entries))
        self._world.note_index()

    def note_erased(self, position: int) -> None:
        """Deletions up to a position are erased."""
        super().note_erased(position)
        self._world.note_index()

    def abandon(self) -> None:
        """Close what the end of a real process would close: the database is the one thing that is real."""
        self._index._database.close()
        self._index._checkpoints.close()


class SimulatedHelper:
    """The second process that makes files while the tree lags, and the first one's side of it."""

    running = True
    blocked = 0

    def __init__(self, world: "World") -> None:
        self._world = world
        self._task: Task | None = None

    def ask(self, piece: Slice) -> bool:
        if self._world.random.random() < 0.2:
            return False  # there is none to be had
        self._task = Kernel.current.scheduler.spawn("helper", lambda: self._write(piece))
        return True

    def finish(self) -> bool:
        scheduler = Kernel.current.scheduler
        assert self._task is not None
        if self._world.random.random() < 0.1:
            self.stop()  # it is killed, wherever it stands
            return False
        while not self._task.done:
            scheduler.pause(waits=True)
        return self._task.error is None

    def stop(self) -> None:
        if self._task is not None:
            Kernel.current.scheduler.kill(self._task)
            self._task = None

    def _write(self, piece: Slice) -> None:
        world = self._world
        reader = JournalReader(world.files, world.folders.journal)
        with closing(connect(world.index_path, read_only=True)) as database:
            tree = TreeWriter(
                world.datadir, database, reader, world.store,
                TreeOptions(features=world.kernel.disk.ways, assists=True),
            )  # fmt: skip
            self.blocked += tree.write_part(piece)


class _Line:
    """The keeper's end of its line."""

    def __init__(self, state: JournalState) -> None:
        self.state = state


class SimulatedKeeper:
    """Packs complete segments, and erases in them, beside everybody else; the seed says when it is killed.

    Attributes:
        erased_to: all deletions up to this position are erased.
        wants_segment: the open segment holds something to erase.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._task: Task | None = None
        self.erased_to = 0
        self.wants_segment = False

    def follow(self) -> None:
        """Start it, unless it runs."""
        if self._task is None or self._task.done:
            error = None if self._task is None else self._task.error
            if error is not None and not (isinstance(error, OSError) and self._world.kernel.faults):
                raise error
            self._task = Kernel.current.scheduler.spawn("keeper", self._main)

    def stop(self) -> None:
        """End it at once, wherever it stands."""
        if self._task is not None:
            Kernel.current.scheduler.kill(self._task)
            self._task = None

    def _main(self) -> None:
        world, looked_at = self._world, set[int]()
        folder = world.folders.journal
        remove_left_overs(world.files, folder)
        chain = Chain(world.files, folder, open_files_max=1)
        eraser = Eraser(world.datadir, _NO_PACE, packs=True)
        while True:
            is_erasing = world.index.pending > 0
            if is_erasing:
                self._erase(eraser, chain)
            options = Options(world.kernel.disk.ways.exchange and not is_erasing, SEGMENT_BYTES)
            chain.refresh()
            number = min(chain.last, world.journal.mark.segment) - 1
            while number in looked_at:
                number -= 1
            if number < 1:
                Kernel.current.scheduler.pause(waits=True)
                continue
            looked_at.add(number)
            with closing(open_segment(world.files, segment_name(number), dir_fd=folder)) as file:
                is_packed = file.is_packed
            if not is_packed:
                end = chain.end_of(number)
                assert end is not None
                pack_segment(world.files, folder, (number, end), _NO_PACE, options)
                world.packed += 1
            if SPARE_NAME in world.files.list_dir(folder):
                world.journal.offer_spare()

    def _erase(self, eraser: Eraser, chain: Chain) -> None:
        world = self._world
        projected = world.server._projections.slowest()
        line = _Line(JournalState(world.journal.mark.segment, projected, erases=True))
        outcome = eraser.run(chain, cast("KeeperEnd", line))
        if outcome.fault and not world.kernel.faults:
            raise Violation(f"what was deleted can't be erased: {outcome.fault}")
        self.erased_to = max(self.erased_to, outcome.erased_to)
        self.wants_segment = outcome.wants_segment
        world.erased += outcome.records


class SimulatedFollower:
    """Both ends of the line: what the server knows of a worker, and what the worker gets."""

    def __init__(self, kind: str, world: "World") -> None:
        self.kind = kind
        self.pid: int | None = None
        self.place: LogPosition | None = None
        self.sent: LogPosition | None = None
        self.fault = ""
        self.out_of_space = False
        self.blocked = self.starts = self.generation = self.faults = self.rebuilds = 0
        self.idle = False
        self.heard = 0.0
        self.mark = LogPosition(0, 0, 0)
        self.erased = self.pending = self.oldest_ms = self.aged_ms = 0
        self.finishing = False
        self._world = world
        self._task: Task | None = None
        self._helper: SimulatedHelper | None = None

    # --- the server's end --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        self.mark, self.sent, self.finishing = LogPosition(0, 0, 0), None, False
        self.erased = self.aged_ms = 0
        self.starts += 1
        self._task = Kernel.current.scheduler.spawn(self.kind, self._main)

    def fileno(self) -> int | None:
        return None

    def send(self, mark: LogPosition) -> None:
        if self._task is not None:
            self.mark = self.sent = mark

    def send_erased(self, position: int) -> None:
        if self._task is not None:
            self.erased = position

    def send_aged(self, time_ms: int) -> None:
        if self._task is not None:
            self.aged_ms = time_ms

    def receive(self) -> bool:
        return self._task is not None and self._task.done

    def reap(self) -> int:
        assert self._task is not None
        error = self._task.error
        if error is not None and not isinstance(error, _EXPECTED):
            raise error
        if error is not None and not isinstance(error, IndexUnusableError) and not self._world.kernel.faults:
            raise error
        self._gone()
        self.fault = "ended"
        return 0

    def rebuild_index(self, reason: str) -> None:
        raise NotImplementedError

    def due(self) -> bool:
        return self._task is None

    def stop(self) -> None:
        """End it at once, wherever it stands."""
        if self._task is not None:
            scheduler = Kernel.current.scheduler
            scheduler.kill(self._task)
            self._gone()

    def finish(self) -> None:
        """Let it come to the last mark."""
        self.finishing = True

    @property
    def ended(self) -> bool:
        return self._task is None or self._task.done

    def _gone(self) -> None:
        self._task = None
        self.generation += 1
        self.place = None
        if self._helper is not None:
            self._helper.stop()
            self._helper = None

    # --- the worker's end --------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        kernel = Kernel.current
        kernel.clock.up += min(seconds, WAIT_SECONDS_MAX)
        kernel.scheduler.pause(waits=bool(seconds) and not self.finishing)

    def report(self, report: Report) -> None:
        self.fault, self.blocked, self.idle = report.fault, report.blocked, report.idle
        self.out_of_space = report.out_of_space
        self.pending, self.oldest_ms = report.pending, report.oldest_ms
        self.heard = Kernel.current.clock.up
        if report.blocked:
            raise Violation("a file of the tree was given up as blocked")
        if not report.fault:
            self.place = report.place

    def _sweep(self, tree: TreeWriter, database: sqlite3.Connection, helper: SimulatedHelper) -> Sweep | None:
        """Lets old jobs leave; the seed says what is old."""
        world = self._world
        if not world.ages_jobs:
            return None

        def position_at(_since_ms: int, _now_ms: int) -> int:
            end = read_cursor(database).position
            return world.random.choice([end, world.random.randint(0, end)])

        options = SweepOptions(keep_days=world.keep_days, interval=1.0)
        return Sweep(world.datadir, tree, options, position_at, lambda: self.aged_ms, helper.stop)

    def _main(self) -> None:
        """As `worker.main` does."""
        world = self._world
        reader = JournalReader(world.files, world.folders.journal)
        path = world.index_path
        try:
            if self.kind == "index":
                projection = WatchedIndex(path, reader, world.store, world)
                try:
                    follow(projection, reader, self)  # type: ignore[arg-type]
                except BaseException:
                    projection.abandon()
                    raise
                return
            with closing(connect(path, read_only=True)) as database:
                options = TreeOptions(features=world.kernel.disk.ways)
                left_out.take_setting(world.files, world.folders.stored, world.store, world.leave_out)
                tree = TreeWriter(world.datadir, database, reader, world.store, options)
                tree.syncer = BackgroundSync(world.files.sync_all)
                self._helper = SimulatedHelper(world)
                sweep = self._sweep(tree, database, self._helper)
                follow(TreeProjection(tree, self._helper, sweep=sweep), reader, self)  # type: ignore[arg-type]
        except DamageError as error:
            raise Violation(f"a worker found damage: {error}") from error
        except (IndexUnusableError, sqlite3.DatabaseError):
            if self.kind == "index":
                remove(path)
            raise
