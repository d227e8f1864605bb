"""Fences of a replicated journal: judged when a store is applied, by what the log tells of last writers."""

from perstack_stored.errors import Refusal, StreamFailedError
from perstack_stored.journal.last_writers import Expectation
from perstack_stored.journal.logged_writers import LoggedWriters
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.owners import Owner
from perstack_stored.store.fences import Fences, conflict_at


class LogFences(Fences):
    """The last writers that the journal's sessions keep."""

    def __init__(self, journal: JournalWriter, writers: LoggedWriters) -> None:
        super().__init__(journal)
        self._logged = writers

    @property
    def active(self) -> bool:
        """Whether each record that is written must be noted."""
        return self._logged.active

    def begin(self) -> None:
        """Do nothing: the log tells when to begin."""

    def begin_at(self, position: int) -> None:
        """Begin with a message that expects something, unless it has begun.

        Args:
            position: of the last record before the message.

        Raises:
            StreamFailedError: what the log says of last writers is lost here.
        """
        if self._logged.is_lost:
            raise StreamFailedError(
                "a store expects that nobody else has stored for its job, and this base has lost records that"
                " tell: restore a newer backup of another daemon into an empty base"
            )
        self._logged.begin(position)

    def prepare(self) -> None:
        """Do nothing: they are known."""

    def note(self, owner: Owner, session: bytes, position: int) -> None:
        """Note a record of the message that is being applied."""
        self._logged.plan(owner, session, position)

    def written(self) -> None:
        """Note that the message is in the journal."""
        self._logged.written()

    def forget(self) -> None:
        """Forget the message: it was not written."""
        self._logged.take_back()

    def conflict(self, expected: Expectation, session: bytes, end: int) -> Refusal | None:
        """See `Fences.conflict`."""
        return conflict_at(self._logged.met(expected.owner, session), expected, end)
