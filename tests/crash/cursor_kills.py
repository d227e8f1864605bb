"""SIGKILL of daemon and subscriber while a named cursor is followed: no record may be left out.

`python -m tests.crash.cursor_kills` kills a thousand times, in parts.
"""

import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from perstack_storage import Client, StorageError
from tests.crash.in_parts import plan_from, play
from tests.crash.progress import Figures
from tests.helpers.daemon import RunningDaemon, eventually

NAME = "billing"
TYPE = "wanted"
_WANTED_EVERY = 3
_SUBSCRIBER = """
import sys
from perstack_storage import Client
endpoint, path, every = sys.argv[1:]
with Client(endpoint, timeout_s=60) as client, open(path, "a", buffering=1) as handled:
    which = {"name": "billing", "types": ["wanted"]}
    if every:
        which["commit_every"] = float(every)
    for number, record in enumerate(client.follow(**which)):
        print(record["position"], file=handled)
        if not every and number % 5 == 4:
            client.commit(record)
"""


class Outcome(NamedTuple):
    """What a campaign has seen."""

    kills: int
    wanted: int
    handled: int  # with those that came again
    lives: int  # of the subscriber


def event(number: int) -> dict[str, Any]:
    """An event; each third one is of the wanted type."""
    kind = TYPE if number % _WANTED_EVERY == 0 else "other"
    ids = {"id": f"e{number}", "jobId": f"j{number % 5}", "runId": "r", "expertKey": "k"}
    return {"type": kind, "timestamp": number, "stepNumber": 1, **ids}


class _Subscriber:
    """A process that follows; each life appends to a file of its own."""

    def __init__(self, folder: Path, endpoint: str, rng: random.Random) -> None:
        self._folder, self._endpoint, self._rng = folder, endpoint, rng
        self.files: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.files.append(self._folder / f"life-{len(self.files)}")
        every = self._rng.choice(["", "0", "0.05"])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SUBSCRIBER, self._endpoint, str(self.files[-1]), every]
        )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def lives(self) -> list[list[int]]:
        """The positions that each life has handled."""
        found = [path.read_text() if path.exists() else "" for path in self.files]
        return [[int(line) for line in text.split("\n")[:-1]] for text in found]


def run(folder: Path, kills: int, rng: random.Random) -> Outcome:
    """Store and kill; then wait until everything was handled.

    Raises:
        AssertionError: a record was left out, came out of order, or came again though it was committed.
    """
    daemon = RunningDaemon(folder / "base").start()
    subscriber = _Subscriber(folder, daemon.endpoint, rng)
    wanted: list[int] = []
    ending = threading.Event()

    def store() -> None:
        with Client(daemon.endpoint, timeout_s=60) as client:
            number = 0
            while not ending.is_set():
                position = client.store_event(event(number))
                if number % _WANTED_EVERY == 0:
                    wanted.append(position)
                number += 1
                ending.wait(0.002)

    storing = threading.Thread(target=store)
    storing.start()
    committed: list[int] = []
    try:
        subscriber.start()
        for _ in range(kills):
            before = sum(map(len, subscriber.lives()))
            eventually(lambda before=before: sum(map(len, subscriber.lives())) > before, "it goes on")  # type: ignore[misc]
            ending.wait(rng.uniform(0, 0.1))
            if rng.random() < 0.5:
                daemon.kill()
                daemon.start()
            else:
                subscriber.kill()
                committed.append(_cursor(daemon.endpoint))
                subscriber.start()
        ending.set()
        storing.join()
        # Not always by the last life: where nothing was stored since, it was one before.
        eventually(lambda: any(wanted[-1] in life for life in subscriber.lives()), "all was handled")
    finally:
        ending.set()
        storing.join()
        subscriber.kill()
        assert daemon.stop() == 0
    lives = subscriber.lives()
    assert {position for life in lives for position in life} == set(wanted), "none is left out"
    for life in lives:
        assert life == sorted(set(life)), "in order, and once in a life"
    for life, cursor in zip(lives[1:], committed, strict=True):
        assert not life or life[0] > cursor, "what was committed does not come again"
    return Outcome(kills, len(wanted), sum(map(len, lives)), len(lives))


def _cursor(endpoint: str) -> int:
    with Client(endpoint, timeout_s=60) as client:
        return next((one["position"] for one in client.cursors() if one["name"] == NAME), 0)


def _part(kills: int, seed: int, folder: Path) -> Figures:
    try:
        return dict(run(folder, kills, random.Random(seed))._asdict())
    except StorageError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def main() -> int:
    """All kills in parts; `--results` lets a run go on."""
    return play(plan_from(sys.argv[1:], "cursor_kills", 1000, 50), _part)


if __name__ == "__main__":
    sys.exit(main())
