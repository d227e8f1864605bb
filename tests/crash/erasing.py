"""Kills and power cuts while records are stored, deleted, packed and erased: `make erase-kills`.

The rounds are those of the soak, but every fourth kill waits until the keeper runs. In the end of each base
nothing of what was deleted may be left, all else must be as it was sent, and `check` must find nothing. Each
base that was judged gets a line; so a campaign that is cut off has said how far it came.
"""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.crash import cuts, kills
from tests.crash.progress import Figures, Progress

_BY_SIGNAL = 128
Campaign = Callable[[int, int, Path, Progress], Figures]


class Report:
    """What a campaign has come to, as it goes on."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._seed = seed
        self._began = time.monotonic()
        self._facts: dict[str, Any] = {"round": 0, "figures": {}}

    def take(self, **facts: Any) -> None:
        """Note rounds, or figures, which come once a base was judged."""
        self._facts.update(facts)
        if "figures" in facts:
            self.say("so far")

    def say(self, how: str) -> None:
        """Print where it stands."""
        seconds = round(time.monotonic() - self._began)
        sys.stdout.write(
            f"{self._facts['round']} {self._name} in {seconds} s, seed {self._seed}, {how}; of the bases that"
            f" were judged: {self._facts['figures']}\n"
        )
        sys.stdout.flush()


def run(name: str, campaign: Campaign, rounds: int, seed: int, minutes: float) -> None:
    """Run one of both; however it ends, its report is the last line. What was found stays on disk.

    Raises:
        AssertionError: a promise was broken.
    """
    report, how = Report(name, seed), "cut off"
    folder = Path(tempfile.mkdtemp(prefix=f"erase-{name}-"))
    try:
        campaign(rounds, seed, folder, Progress(report.take, minutes * 60))
        how = "done"
    except AssertionError:
        how = f"something was found, kept in {folder}"
        raise
    finally:
        if how in {"done", "cut off"}:
            shutil.rmtree(folder)
        report.say(how)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the process as Ctrl-C does: daemons and clients are ended, folders removed."""

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # `timeout` and `make` may both send one
        raise SystemExit(_BY_SIGNAL + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Run both, and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=50.0, help="no round of either begins later")
    given = parser.parse_args()
    with ended_by_signals():
        for name, campaign, rounds in (
            ("kills", kills.keeper_campaign, given.kills),
            ("cuts", cuts.campaign, given.cuts),
        ):
            if rounds:
                run(name, campaign, rounds, given.seed, given.minutes)


if __name__ == "__main__":
    main()
