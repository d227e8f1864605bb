"""The last writers of a replicated journal: a function of the log alone, so that all daemons judge alike.

Nothing is kept until the log brings a store that expects something: then nobody is known to have stored, and
anybody may have, up to the record before its message. From then on each record is noted, and the head of each
segment repeats what is known. What an erased or lost record was can't be known at a restart: who met one
knows nothing any more, and says so.
"""

from collections.abc import Iterable

from perstack_stored.model.kinds import Kind
from perstack_stored.model.owners import Owner, owner_of

from .entry_format import EntryHeader, RecordPlace
from .last_writers import LastWriters

LOGGED_KEYS_MAX = 8192
"""Jobs and runs that are known: fewer than elsewhere, as the head of each segment repeats them (0.7 MiB)."""
_LOST = 2**64 - 1  # as the floor: nothing is known any more


class LoggedWriters:
    """The last writers; what a message stores is noted once it is in the journal."""

    def __init__(self, keys_max: int = LOGGED_KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._writers: LastWriters | None = None
        self._begun: LastWriters | None = None  # with the message that is being applied
        self._planned: list[tuple[Owner, bytes, int]] = []
        self._recent = LastWriters(0)  # of the first of those, as many as `_asked`
        self._asked = 0

    @property
    def active(self) -> bool:
        """Whether each record must be noted."""
        return self._writers is not None or self._begun is not None

    @property
    def is_lost(self) -> bool:
        """Whether it is not known any more who stored last."""
        return self._writers is not None and self._writers.floor == _LOST

    def clear(self) -> None:
        """Forget all."""
        self._writers = None
        self.take_back()

    def begin(self, floor: int) -> None:
        """Begin with a message, unless it has begun; `floor` is the position before the message."""
        if self._writers is None:
            self._begun = LastWriters(floor, self._keys_max)

    def plan(self, owner: Owner, session: bytes, position: int) -> None:
        """Note a record of the message that is being applied."""
        self._planned.append((owner, session, position))

    def met(self, owner: Owner, session: bytes) -> int:
        """See `LastWriters.met`; what the message has stored so far counts."""
        writers = self._begun if self._writers is None else self._writers
        assert writers is not None
        for noted in self._planned[self._asked :]:
            self._recent.note(*noted)
        self._asked = len(self._planned)
        return max(writers.met(owner, session), self._recent.met(owner, session))

    def written(self) -> None:
        """Note that the message is in the journal."""
        if self._begun is not None:
            self._writers, self._begun = self._begun, None
        if self._planned:
            assert self._writers is not None
            for owner, session, position in self._planned:
                self._writers.note(owner, session, position)
        self.take_back()

    def take_back(self) -> None:
        """Forget the message: it was not written."""
        self._begun = None
        self._planned = []
        if self._asked:
            self._recent, self._asked = LastWriters(0), 0

    # --- recovery ----------------------------------------------------------------------------------

    def lose(self) -> None:
        """Note that it is not known any more who stored last."""
        self._writers = LastWriters(_LOST, self._keys_max)

    def replay(self, header: EntryHeader, data: bytes | memoryview, places: Iterable[RecordPlace]) -> None:
        """Note the records of an entry of the journal."""
        if self._writers is None or self.is_lost:
            return
        for position, place in enumerate(places, header.position):
            if place.kind == Kind.GAP:
                self.lose()
                return
            payload = data[place.start : place.start + place.length]
            self._writers.note(owner_of(place.kind, payload), header.session, position)

    def snapshot(self) -> bytes:
        """Encode what is in the journal; nothing before it began."""
        return b"" if self._writers is None else self._writers.encode()

    def restore(self, data: bytes | memoryview) -> None:
        """Replace all by a snapshot whose checksum was tested."""
        self._writers = LastWriters.decode(data, self._keys_max)
