"""What writers of the campaign were answered: in memory, and in a file that outlives a campaign cut off."""

import os
import random
import threading
from pathlib import Path
from typing import NamedTuple

from tests.helpers.daemon import RunningDaemon


class Pace(NamedTuple):
    """How writers store.

    Attributes:
        folder: for the files with their answers.
        per_second: records that each of them stores.
        large_seconds: each stores a value that goes through the log in pieces about so often.
    """

    folder: Path
    per_second: float
    large_seconds: float


class Answers:
    """Positions of what was acknowledged, and codes of what was refused, by number of the store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acked: dict[int, int] = {}
        self.refused: dict[int, str] = {}

    @property
    def newest(self) -> int:
        """The highest position that was acknowledged; 0 if there is none."""
        return max(self.acked.values(), default=0)


class Recorder(threading.Thread):
    """A writer, which notes its answers."""

    def __init__(self, name: str, daemons: list[RunningDaemon], seed: int, pace: Pace) -> None:
        super().__init__(name=name, daemon=True)
        self.daemons = daemons
        self.random = random.Random(seed)
        self.pace = pace
        self.answers = Answers(name)
        self.stopping = False
        self.moves = 0
        self.longest = 0.0  # time without an answer, in seconds
        self.fault: BaseException | None = None
        self._file = pace.folder / f"{name}.answers"

    def run(self) -> None:
        """Store until stopped, and all is answered."""
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.store_all()
        except BaseException as error:  # noqa: BLE001 - the judge shows it
            self.fault = error
        finally:
            os.close(self._fd)

    def store_all(self) -> None:
        """Store until `stopping` is set, and all is answered."""
        raise NotImplementedError

    def ack(self, seq: int, position: int) -> None:
        """Note an acknowledgement."""
        before = self.answers.acked.setdefault(seq, position)
        assert before == position, f"{self.name}: store {seq} has two positions, {before} and {position}"
        os.write(self._fd, f"{seq} {position}\n".encode())

    def refuse(self, seq: int, code: str) -> None:
        """Note a refusal that is not to be tried again."""
        self.answers.refused[seq] = code
        os.write(self._fd, f"{seq} {code}\n".encode())


def answers_in(folder: Path) -> list[Answers]:
    """The answers of all writers of a campaign, from their files."""
    found = []
    for path in sorted(folder.glob("*.answers")):
        answers = Answers(path.stem)
        for line in path.read_text().splitlines():
            seq, _, what = line.partition(" ")
            if what.isdecimal():
                answers.acked[int(seq)] = int(what)
            else:
                answers.refused[int(seq)] = what
        found.append(answers)
    return found
