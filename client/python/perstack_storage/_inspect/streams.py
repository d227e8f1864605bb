"""The streams of the gateway, of records and of jobs that change, and how many there are."""

from perstack_storage._inspect.changes import Changes
from perstack_storage._inspect.live import Hub
from perstack_storage._inspect.source import Source


class Streams:
    """What follows the store for the streams of each kind."""

    def __init__(self, source: Source) -> None:
        self._records, self._changes = Hub(source), Changes(source)

    @property
    def count(self) -> int:
        """How many streams there are."""
        return self._records.streams + self._changes.streams

    def of(self, jobs: bool) -> Hub | Changes:
        """What serves streams of the jobs that change, or of records."""
        return self._changes if jobs else self._records

    def close(self) -> None:
        """End all streams."""
        self._records.close()
        self._changes.close()
