"""The streams of the gateway, of records and of jobs that change, and how many there are."""

from weakref import WeakValueDictionary

from perstack_storage._inspect import limits
from perstack_storage._inspect.changes import Changes
from perstack_storage._inspect.live import Hub
from perstack_storage._inspect.source import Source


class Streams:
    """What follows the store for the streams of each kind: a job that is looked at is followed alone."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._records, self._changes = Hub(source), Changes(source)
        self._of_jobs = WeakValueDictionary[str, Hub]()  # each is there as long as a stream holds it

    @property
    def count(self) -> int:
        """How many streams there are."""
        return self._changes.streams + sum(hub.streams for hub in self._hubs())

    def of_changes(self) -> Changes:
        """What serves streams of the jobs that change."""
        return self._changes

    def of_records(self, job: str | None) -> Hub:
        """What serves streams of records, of this job only or of all."""
        if job is None:
            return self._records
        if job not in self._of_jobs and len(self._of_jobs) >= limits.JOBS_FOLLOWED_MAX:
            return self._records
        return self._of_jobs.setdefault(job, Hub(self._source, job))

    def close(self) -> None:
        """End all streams."""
        self._changes.close()
        for hub in self._hubs():
            hub.close()

    def _hubs(self) -> list[Hub]:
        return [self._records, *self._of_jobs.values()]
