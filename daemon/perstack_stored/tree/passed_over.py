"""The blocked records that the tree passes over: a worker died at them."""

from collections.abc import Iterable

from .blocked import BlockedRecord
from .write import Write


class PassedOver:
    """Blocked records, which are not written.

    Attributes:
        records: by position.
        changed: the list on disk does not match them.
    """

    def __init__(self, records: Iterable[BlockedRecord]) -> None:
        self.records = {one.position: one for one in records}
        self.changed = False

    def forget_of(self, position: int, job: str, run: str | None) -> None:
        """Forget records of a job or run before a position: they are deleted."""
        folder = f"jobs/{job}/" if run is None else f"jobs/{job}/runs/{run}/"
        for one in list(self.records.values()):
            if one.position < position and one.file.startswith(folder):
                del self.records[one.position]
                self.changed = True

    def drop_older(self, write: Write) -> None:
        """Forget a record that was passed over: a later value of its file is there."""
        older = [
            one.position
            for one in self.records.values()
            if one.file == write.path and one.position < write.position
        ]
        for position in older:
            del self.records[position]
            self.changed = True
