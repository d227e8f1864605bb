"""The deletions of a journal or backup, for tools that read records without an index."""

from perstack_stored.journal import entry_format
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model import deletions
from perstack_stored.model.deletions import Deletion
from perstack_stored.model.kinds import Kind


class JournalDeletions:
    """Deletions and redactions with their positions. False if there are none."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str | None], int] = {}
        self._redacted: dict[tuple[str, str | None], int] = {}
        self.listed: list[tuple[int, int, Deletion]] = []  # position, time in ms, deletion

    def __bool__(self) -> bool:
        return bool(self._newest or self._redacted)

    def note_entry(self, entry: Entry) -> None:
        """Note the deletions of an entry; entries come in order."""
        for position, place in enumerate(
            entry_format.record_places(entry.data, entry.header), entry.header.position
        ):
            if place.kind == Kind.DELETION:
                payload = entry.data[place.start : place.start + place.length]
                self.note(position, entry.header.time_ms, deletions.decode(payload))

    def note(self, position: int, time_ms: int, deletion: Deletion) -> None:
        """Note a deletion."""
        of_kind = self._redacted if deletion.is_redaction else self._newest
        of_kind[deletion.jobId, deletion.runId] = position
        self.listed.append((position, time_ms, deletion))

    def in_force(self) -> list[tuple[int, int, Deletion]]:
        """What was deleted, without the redactions that a later deletion or redaction has removed."""
        return [
            one
            for one in self.listed
            if not one[2].is_redaction
            or not self.has(one[0], one[2].jobId, one[2].runId or "", is_setting=True)
        ]

    def has(self, position: int, job: str, run: str, *, is_setting: bool = False) -> bool:
        """Whether a record of a job, and of a run if it has one, was removed; a redaction is a setting."""
        last = self._newest.get((job, None), 0)
        if run:
            last = max(last, self._newest.get((job, run), 0))
        if is_setting:
            last = max(last, self._redacted.get((job, run), 0))
        return last > position
