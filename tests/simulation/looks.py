"""Looks at a simulated base: index and tree hold what was stored, and nothing that is torn or older."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from crc32c import crc32c

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import Folders
from perstack_stored.index.connection import connect
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.tree import left_out
from perstack_stored.tree.cursor import Cursor, load_cursor
from tests.helpers.index import addresses
from tests.simulation.clients import Ledger, Violation
from tests.simulation.disk import File
from tests.simulation.expected import Projection, Stored
from tests.simulation.kernel import Kernel
from tests.simulation.pauses import quiet
from tests.simulation.processes import SimulatedFollower, stored_in
from tests.simulation.promises import as_seen, check_erased


class Seen(NamedTuple):
    """A file of the tree as it was at the last look."""

    number: int
    version: int
    content: bytes


class Looks:
    """Looks at a base, at any time of the daemon's life."""

    kernel: Kernel
    ledger: Ledger
    files: FileSystem
    folders: Folders
    journal: JournalWriter
    tree: SimulatedFollower
    store: bytes
    index_path: str
    index_states: list[bytes | None]
    projection: Projection  # what the tree may hold
    shown: int  # the last position that readers can see
    looks: int
    ages_jobs: bool  # whether old jobs leave the tree
    _last_seen: dict[str, Seen]

    def show(self, records: Iterable[Stored]) -> None:
        """Records that readers can see now."""
        for stored in self._as_stored(records):
            self.ledger.show(stored)
            if stored.position > self.shown:
                self.shown = stored.position
                self.projection.extend([stored])

    def note_index(self) -> None:
        """The index has committed."""
        with contextlib.closing(sqlite3.connect(self.index_path)) as database:
            self.index_states.append(database.serialize())
        del self.index_states[:-30]

    def _visible(self) -> dict[str, File]:
        return self.kernel.disk.files_under("jobs")

    def look(self) -> None:
        """Somebody looks at the tree: each file is whole, none has vanished or become older."""
        visible = self._visible()
        for path, file in visible.items():
            before = self._last_seen.get(path)
            if before is not None and before[:2] == (file.number, file.version):
                continue
            self.looks += 1
            known = self.projection.versions.get(path, [])
            seen = Seen(file.number, file.version, bytes(file.data))
            if seen.content not in known:
                raise Violation(f"{path} holds what it never should: {seen.content[:80]!r}")
            if before is not None and before.content in known:
                newest = max(i for i, version in enumerate(known) if version == seen.content)
                if newest < known.index(before.content):
                    raise Violation(
                        f"{path} became older: version {newest} after {known.index(before.content)}"
                    )
            self._last_seen[path] = seen
        for path in self._last_seen.keys() - visible.keys():
            if path not in self.projection.dead and not self._may_have_left(self.projection, path):
                raise Violation(f"{path} vanished")
            del self._last_seen[path]

    def _check_ready_tree(self) -> None:
        """Once ready, the tree is as of some position or newer, and nothing in it is torn."""
        reached = self._cursor().position
        if self.tree.place is not None:
            reached = max(reached, self.tree.place.position)
        least = Projection()
        least.extend(stored for stored in self.records() if stored.position <= reached)
        full = Projection()
        full.extend(self.records())
        visible = self._visible()
        # Of a job that is written back, the tree's process writes a later version in its turn.
        late = {
            path
            for path, versions in full.versions.items()
            if len(versions) > len(least.versions.get(path, [])) and self._had_left(full, path)
        }
        left = late | {path for path in visible if self._may_have_left(full, path)}
        for path, file in visible.items():
            if path in left:
                continue  # what a crash left of it is removed later, or written again
            if bytes(file.data) not in full.versions.get(path, [])[least.dead.get(path, 0) :]:
                raise Violation(f"{path} is torn, foreign, or deleted, when the daemon is ready")
        for path in least.files:
            versions = least.versions[path]
            if full.dead.get(path, 0) >= len(versions) or (path, len(versions) - 1) in full.removed:
                continue  # it is deleted later, and may be gone already
            if path not in visible:
                if self._is_left_out(full, path) or self._may_have_left(full, path) or path in late:
                    continue
                raise Violation(f"{path} is missing when the daemon is ready")
            if path in left:
                continue
            content = bytes(visible[path].data)
            every = full.versions[path]
            if max(i for i, version in enumerate(every) if version == content) < len(versions) - 1:
                raise Violation(f"{path} is older than it should be when the daemon is ready")

    def _is_left_out(self, projection: Projection, path: str) -> bool:
        """Whether the tree's record says that an event's file need not be there."""
        return path in projection.events and self._left_out().has_event(*projection.events[path])

    def _may_have_left(self, projection: Projection, path: str) -> bool:
        """Whether a job may have left the tree at some time, and may not be back yet."""
        if any(one.job == path.split("/")[1] for one in self._left_out().written_back):
            return False  # they are there before the record says so
        return self._had_left(projection, path)

    def _had_left(self, projection: Projection, path: str) -> bool:
        return self.ages_jobs and projection.ages.had_ended(path.split("/")[1], self._left_out().jobs_until)

    def _left_out(self) -> left_out.LeftOut:
        """The tree's record of what is left out."""
        with quiet(self.kernel):
            state = left_out.load(self.files, self.folders.stored, self.store)
        if state.is_damaged:
            raise Violation("the record of what is left out is torn")
        return state.left_out

    def _cursor(self) -> Cursor:
        with quiet(self.kernel):
            return load_cursor(self.files, self.folders.stored, self.store)

    def records(self) -> list[Stored]:
        """All that is synced in the journal, read again."""
        with quiet(self.kernel):
            reader = JournalReader(self.files, self.folders.journal)
            try:
                found = list(stored_in(reader.entries(reader.start(), self.journal.mark)))
            finally:
                reader.close()
        check_erased(found, self.ledger)
        return list(self._as_stored(found))

    def _as_stored(self, records: Iterable[Stored]) -> Iterator[Stored]:
        """Records as they were before they were erased: a reader was shown each of them."""
        return (as_seen(stored, self.ledger) for stored in records)

    def _check_index(self, wanted: Projection) -> None:
        payloads = []
        with (
            quiet(self.kernel),
            contextlib.closing(connect(self.index_path, read_only=True)) as database,
        ):
            reader = JournalReader(self.files, self.folders.journal)
            for segment, offset, length, crc in addresses(database):
                payload = reader.payload(segment, offset, length)
                if crc32c(payload) != crc:
                    raise Violation(f"the index names bytes that are not there: {segment}, {offset}")
                payloads.append(payload)
            reader.close()
        if sorted(payloads) != wanted.payloads:
            raise Violation("the index is not what the journal says")
