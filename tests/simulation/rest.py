"""What must be so once a simulated daemon has come to rest."""

from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.journal.reader import JournalReader
from tests.simulation.clients import Violation
from tests.simulation.disk import File
from tests.simulation.expected import Projection
from tests.simulation.pauses import quiet
from tests.simulation.processes import stored_in
from tests.simulation.promises import check_records, removed_records
from tests.simulation.retiring import requests_left
from tests.simulation.steps import Steps


class Rest(Steps):
    """The checks of the end."""

    leave_out: tuple[str, ...]  # types of events, as the settings of this life say
    left_out: int  # files that were found to be missing by the settings
    jobs_left: int  # jobs that have left the tree at the end
    written_back: int  # jobs that were asked for, and stay in the tree
    begun_at: int  # the last position that the life before has left

    def check_end(self) -> None:
        """All promises, once everything has come to rest."""
        records = self.records()
        check_records(records, self.ledger)
        wanted = Projection()
        wanted.extend(records)
        out = self._old_jobs(wanted)
        # What a crash left of a job that has left the tree may be torn until it is removed.
        visible = {path: file for path, file in self._visible().items() if path.split("/")[1] not in out}
        tree = {path: bytes(file.data) for path, file in visible.items()}
        absent = {path for path in wanted.files if path not in tree and self._is_left_out(wanted, path)}
        self.left_out += len(absent)
        old = self._old_files(wanted)
        absent |= {path for path in old if path not in tree}
        if tree != {path: data for path, data in wanted.files.items() if path not in absent}:
            differ = sorted(
                p for p in tree.keys() | wanted.files.keys() if tree.get(p) != wanted.files.get(p)
            )
            raise Violation(f"the tree is not what the journal says: {differ[:3]}")
        # By the setting alone: what came in this life has a file, or has none.
        for path, (position, type) in wanted.events.items():
            if (
                position > self.begun_at
                and path not in old
                and path in wanted.files
                and (path in tree) == (type in self.leave_out)
            ):
                raise Violation(f"{path} is left out against the setting, or is not: {self.leave_out}")
        self._check_index(wanted)
        self._await_clean_cursor()
        self._await_erased()
        self._await_old_jobs_gone(wanted)
        self._await_written_back(wanted)
        if self.records() != records:
            raise Violation("erasing has changed what lives")
        self._check_index(wanted)
        left = self.kernel.disk.find(STORED_NAME, "staging")
        if left is not None and not isinstance(left, File) and left.names:
            raise Violation(f"left in staging: {list(left.names)}")

    def _old_files(self, wanted: Projection) -> set[str]:
        """Files of jobs that may have left the tree."""
        if not self.ages_jobs:
            return set()
        record = self._left_out()
        stay = {one.job for one in record.written_back}
        old = {job for job in wanted.jobs - stay if wanted.ages.may_be_out(job, record.jobs_until)}
        return {path for path in wanted.files if path.split("/")[1] in old}

    def _old_jobs(self, wanted: Projection) -> set[str]:
        """Jobs that have left the tree, beyond doubt."""
        if not self.ages_jobs:
            return set()
        record = self._left_out()
        stay = {one.job for one in record.written_back}
        return {job for job in wanted.jobs - stay if wanted.ages.is_out(job, record.jobs_until)}

    def _await_old_jobs_gone(self, wanted: Projection) -> None:
        """When nothing is left to do, the files of jobs that have left the tree are gone."""
        if not self.ages_jobs:
            return
        for _ in range(100):
            out = self._old_jobs(wanted)
            there = {path for path in self._visible() if path.split("/")[1] in out}
            if not there:
                self.jobs_left += len(out)
                return
            self.run_tasks(50)
        raise Violation(f"these files of jobs that have left the tree stay: {sorted(there)[:3]}")

    def _await_written_back(self, wanted: Projection) -> None:
        """When nothing is left to do, no request waits, and what was written back is there, whole."""
        for _ in range(100):
            if not requests_left(self.kernel.disk):
                break
            self.run_tasks(50)
        else:
            raise Violation(f"requests for jobs wait for ever: {requests_left(self.kernel.disk)}")
        tree = {path: bytes(file.data) for path, file in self._visible().items()}
        for job in {one.job for one in self._left_out().written_back} & wanted.jobs:
            self.written_back += 1
            for path, content in wanted.files.items():
                is_wrong = path.split("/")[1] == job and tree.get(path) != content
                if is_wrong and not self._is_left_out(wanted, path):
                    raise Violation(f"{job} was written back, but for {path}")

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
