"""Removes the files of deleted jobs, runs and records from the tree."""

import sqlite3
from collections.abc import Callable, Iterator

from perstack_stored.index.deletions import Removals
from perstack_stored.index.writer import kind_name
from perstack_stored.journal import entry_format
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions
from perstack_stored.model.kinds import Kind
from perstack_stored.process.worker_status import WorkerStatus

from .passed_over import PassedOver
from .remover import Remover
from .write import SETTING_NAME, Write


def deletions_in(entries: list[Entry]) -> Iterator[tuple[int, deletions.Deletion]]:
    """The deletions among some entries, with their positions."""
    for entry in entries:
        places = entry_format.record_places(entry.data, entry.header)
        for position, place in enumerate(places, entry.header.position):
            if place.kind == Kind.DELETION:
                payload = entry.data[place.start : place.start + place.length]
                yield position, deletions.decode(payload)


def _is_removed(removals: Removals, write: Write) -> bool:
    job = write.folders[1]
    is_setting = write.name == SETTING_NAME
    if removals.has(write.position, job, write.run, is_setting=is_setting):
        return True
    id = write.name.removesuffix(".json")
    return write.kind == "checkpoint" and removals.has_checkpoint(write.position, job, id)


class DeletedFiles:
    """Removes them, each deletion in its turn.

    Attributes:
        begun_again: during a replay, files of deleted jobs that are stored again: position of their last
            record.
    """

    def __init__(
        self,
        index: sqlite3.Connection,
        remover: Remover,
        passed_over: PassedOver,
        status: WorkerStatus,
        let_go: Callable[[tuple[str, ...]], None],
    ) -> None:
        """`let_go` closes a folder before it is removed."""
        self._index = index
        self._remover = remover
        self._passed_over = passed_over
        self._status = status
        self._let_go = let_go
        self.begun_again: dict[tuple[str, ...], int] = {}

    def not_removed(self, writes: list[Write]) -> list[Write]:
        """The writes of records that no deletion has removed, as far as the index knows."""
        removals = Removals(self._index, writes[0].position) if writes else None
        if not removals:
            return writes
        return [write for write in writes if not _is_removed(removals, write)]

    def remove(self, entries: list[Entry], after: int, *, is_named: bool) -> None:
        """Remove the files of jobs and runs that some entries delete, from a position on.

        `is_named`: describe each record in the worker's status.
        """
        for position, deletion in deletions_in(entries):
            if position > after and not deletion.is_redaction:
                self._remove(position, deletion, is_named=is_named)

    def _remove(self, position: int, deletion: deletions.Deletion, *, is_named: bool) -> None:
        job, run = deletion.jobId, deletion.runId
        self._status.at(position)
        if is_named:
            self._status.describe(kind_name(Kind.DELETION), f"jobs/{job}")
        if position in self._passed_over.records:
            return
        # A replay may find files of later records: they are replaced in their turn, and don't vanish before.
        kept = {path for path, last in self.begun_again.items() if last > position}
        if run is None:
            self._remover.remove_job(job, kept)
        else:
            select = "SELECT id FROM deleted_checkpoint WHERE deletion = ?"
            checkpoints = [id for (id,) in self._index.execute(select, (position,))]
            self._remover.remove_run(job, run, checkpoints, kept)
        self._let_go(("jobs", job))
        self._passed_over.forget_of(position, job, run)
        self._status.at(0)

    def put_right(self, writes: list[Write], wanted: list[Write], replay_until: int) -> list[Write]:
        """Remove files of a replay whose records were deleted later: a crash may have torn them.

        Their deletion may come after the daemon is ready. A file that is stored again after it stays.
        A checkpoint of a deleted run stays too where another run has stored it since: it is written again,
        if it is there, and replaced in its turn.

        Args:
            writes: of the replay.
            wanted: those that no deletion has removed.
            replay_until: position up to which files may be torn.

        Returns:
            What is wanted now.
        """
        stays = {(*write.folders, write.name) for write in wanted} | self.begun_again.keys()
        lives = {write.position for write in wanted}
        runs = set()
        replaced = []
        for write in writes:
            if write.position > replay_until or write.position in lives:
                continue
            if write.kind == "event":  # the index does not know any more which number its name had
                runs.add((write.folders[1], write.run))
            elif self._is_replaced(write):
                replaced.append(write._replace(is_left_out=True))
            elif (*write.folders, write.name) not in stays:
                self._remover.remove_file(write.folders, write.name)
        for job, run in runs:
            self._remover.remove_run(job, run, (), stays)
            self._let_go(("jobs", job))
        return sorted(wanted + replaced, key=lambda write: write.position) if replaced else wanted

    def _is_replaced(self, write: Write) -> bool:
        """Whether a checkpoint was stored again, and is there."""
        if write.kind != "checkpoint":
            return False
        select = "SELECT 1 FROM checkpoint WHERE job = ? AND id = ? AND position > ?"
        key = (write.folders[1], write.name.removesuffix(".json"), write.position)
        return self._index.execute(select, key).fetchone() is not None
