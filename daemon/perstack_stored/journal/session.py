"""One session: its numbers, and the positions that its recent stores got. No I/O."""

from collections.abc import Iterator, Sequence

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.shares import NOBODY, Client

from .position_runs import PositionRun, PositionRuns

NEW = -1
"""Where a session began that has stored nothing yet."""


def without(run: PositionRun, lost: Sequence[GapRange]) -> Iterator[PositionRun]:
    """The parts of a run outside of the ranges, which are in order."""
    seq, position, count = run
    for gap in lost:
        if gap.last < position or gap.first >= position + count:
            continue
        if gap.first > position:
            yield PositionRun(seq, position, gap.first - position)
        passed = gap.last + 1 - position
        seq, position, count = seq + passed, position + passed, count - passed
        if count <= 0:
            return
    yield PositionRun(seq, position, count)


class Session:
    """State of one session.

    Attributes:
        last: the highest number admitted.
        written: the highest number in the journal: a store may still be on its way there.
        forgotten: of stores up to this number the positions may be forgotten. A later one without a position
            was refused, or is new.
        used_ms: the daemon's time of its last store, as journalled.
        used: the same on time.monotonic, by which it ages, so that a changed clock has no effect.
        client: the client that stored last.
        begun: the position after which it began; 0 if that is not known, `NEW` before its first store.
    """

    __slots__ = ("begun", "client", "forgotten", "last", "runs", "used", "used_ms", "written")

    def __init__(self, last: int = 0, used_ms: int = 0, used: float = 0.0, client: Client = NOBODY) -> None:
        self.last = self.written = self.forgotten = last
        self.used_ms = used_ms
        self.used = used
        self.client = client
        self.begun = 0
        self.runs = PositionRuns()

    def admit(self, seq: int, count: int, settled: int) -> int:
        """Admit the numbers seq … seq+count-1; return the count of those, from the front, seen before.

        Raises:
            Refusal: SEQUENCE_GAP, if a number before `seq` is missing and not settled.
        """
        if settled:
            self.runs.settle(settled)
            self.forgotten = max(self.forgotten, settled)
        expected = self.last + 1
        if seq > expected and settled < seq - 1:
            raise Refusal(
                ErrorCode.SEQUENCE_GAP,
                f"store number {seq} came, but number {expected} has not come yet",
                "seq",
            )
        self.last = max(self.last, seq + count - 1)
        return min(max(0, expected - seq), count)

    def stored(self, seq: int, position: int, count: int, remembered_max: int) -> int:
        """Remember the positions of a run of stores; return the count of runs added."""
        self.written = max(self.written, seq + count - 1)
        made = self.runs.add(seq, position, count)
        if made:
            # A client with a window of w has at most w unanswered; it can't ask for anything older.
            self.forgotten = max(self.forgotten, self.runs.keep(remembered_max))
        return made

    def position_of(self, seq: int) -> int | None:
        """Position of a store, or None if it was refused or is forgotten."""
        return self.runs.position_of(seq)
