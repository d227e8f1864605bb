"""`make soak`: every campaign at full length, side by side, within an hour; figures in a table and as JSON.

A campaign is a function `campaign(rounds, seed, folder, on_round)` that gives figures by name, and raises if
something is wrong. Each lane of it is a process of its own. `SOAK=quick` runs little of everything.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MINUTES_MAX = 60
_SAY_SECONDS = 15.0
_ROOT = Path(__file__).parents[2]

Figures = dict[str, float]
CampaignFunction = Callable[[int, int, Path, Callable[[int], None]], Figures]


class Campaign(NamedTuple):
    """What is run how often: in all, in a quick soak, and in how many lanes side by side."""

    function: str
    unit: str
    rounds: int
    quick: int
    lanes: int = 1


CAMPAIGNS = {
    "kills": Campaign("tests.crash.kills:campaign", "kills", 1000, 10, lanes=2),
    "cuts": Campaign("tests.crash.cuts:campaign", "power cuts", 200, 4),
    "simulation": Campaign("tests.crash.sim.soak:campaign", "simulated histories", 24, 1),
    "planted": Campaign("tests.crash.planted.soak:campaign", "planted bugs", 200, 6),
}


class Lane:
    """One process of a campaign, and what it has said."""

    def __init__(self, name: str, rounds: int, seed: int, folder: Path) -> None:
        self.name = name
        self.rounds = rounds
        self.done = 0
        self.figures: Figures | None = None
        self.seed = seed
        self.folder = folder
        folder.mkdir(parents=True)
        self.log = folder / "output.txt"
        command = [
            sys.executable,
            "-m",
            "tests.crash.soak",
            "--lane",
            name,
            str(rounds),
            str(seed),
            str(folder),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, cwd=_ROOT, text=True, start_new_session=True
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            self.done = said.get("round", self.done)
            self.figures = said.get("figures", self.figures)

    @property
    def ended(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self.process.poll() is not None

    def end(self) -> bool:
        """End it if it still runs; whether it came to its end by itself, with all its figures."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        return self.process.returncode == 0 and self.figures is not None


def run_lane(name: str, rounds: int, seed: int, folder: Path) -> None:
    """The process of a lane: says each round, and the figures in the end."""
    module, _, function = CAMPAIGNS[name].function.partition(":")
    campaign: CampaignFunction = getattr(importlib.import_module(module), function)

    def say(**what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    figures = campaign(rounds, seed, folder, lambda done: say(round=done))
    say(round=rounds, figures=figures)


class Soak:
    """All campaigns that were asked for, until they have ended or the time is up."""

    def __init__(self, names: list[str], *, quick: bool, seed: int, minutes: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="perstack-soak-", dir="/var/tmp"))
        self._started = time.monotonic()
        self._deadline = self._started + minutes * 60
        self._lanes: list[Lane] = []
        for name in names:
            campaign = CAMPAIGNS[name]
            rounds = campaign.quick if quick else campaign.rounds
            lanes = min(campaign.lanes, rounds)
            for n in range(lanes):
                share = rounds // lanes + (n < rounds % lanes)
                self._lanes.append(Lane(name, share, seed + n, self.folder / f"{name}-{n}"))

    def run(self) -> dict[str, Figures]:
        """Wait for the lanes, and say how far they are.

        Returns:
            figures by campaign; "failed" counts lanes that found something or ran out of time.
        """
        try:
            self._wait()
        except BaseException:
            for lane in self._lanes:
                lane.end()
            raise
        figures: dict[str, Figures] = {}
        for lane in self._lanes:
            good = lane.end()
            of_campaign = figures.setdefault(lane.name, {"rounds": 0, "failed": 0})
            of_campaign["rounds"] += lane.done
            if good:
                assert lane.figures is not None
                _add(of_campaign, lane.figures)
                shutil.rmtree(lane.folder, ignore_errors=True)
            else:
                of_campaign["failed"] += 1
                sys.stdout.write(
                    f"\nFAILED: {lane.name}, seed {lane.seed}, after {lane.done} of {lane.rounds} rounds"
                    f" (status {lane.process.returncode}). All is kept in {lane.folder}\n"
                )
                sys.stdout.write("".join(lane.log.read_text().splitlines(keepends=True)[-30:]))
        return figures

    def _wait(self) -> None:
        said = 0.0
        while not all(lane.ended for lane in self._lanes) and time.monotonic() < self._deadline:
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                sys.stdout.write(f"{self.elapsed():6.0f} s   {self._progress()}\n")
                sys.stdout.flush()
            time.sleep(0.2)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def _progress(self) -> str:
        parts = []
        for name in dict.fromkeys(lane.name for lane in self._lanes):
            lanes = [lane for lane in self._lanes if lane.name == name]
            done, rounds = sum(lane.done for lane in lanes), sum(lane.rounds for lane in lanes)
            parts.append(f"{name} {done:,} of {rounds:,}")
        return "   ".join(parts)


def _add(total: Figures, figures: Figures) -> None:
    """Figures of lanes are added; of those named max, the largest counts."""
    for name, figure in figures.items():
        total[name] = max(total.get(name, 0), figure) if name.endswith("Max") else total.get(name, 0) + figure


def table(figures: dict[str, Figures]) -> str:
    """The figures for people."""
    lines = []
    for name, of_campaign in figures.items():
        rounds = f"{of_campaign['rounds']:,} {CAMPAIGNS[name].unit}"
        rest = [f"{key} {value:,}" for key, value in of_campaign.items() if key != "rounds"]
        lines.append(f"  {name:<10} {rounds:<24} {', '.join(rest)}")
    return "\n".join(lines)


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a little of everything")
    parser.add_argument("--minutes", type=float, default=MINUTES_MAX, help="an end to it in any case")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--figures", type=Path, default=Path("soak.json"), help="where the figures go")
    parser.add_argument("campaigns", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; all if none is named")
    told = parser.parse_args()
    sys.stdout.write(f"seed {told.seed}, at most {told.minutes:g} minutes\n")
    soak = Soak(told.campaigns or list(CAMPAIGNS), quick=told.quick, seed=told.seed, minutes=told.minutes)
    figures = soak.run()
    seconds = round(soak.elapsed(), 1)
    told.figures.write_text(
        json.dumps({"seed": told.seed, "seconds": seconds, "campaigns": figures}, indent=2) + "\n"
    )
    sys.stdout.write(f"\n{table(figures)}\n\n{seconds:g} s, figures in {told.figures}\n")
    failed = any(of_campaign["failed"] for of_campaign in figures.values())
    if not failed:
        shutil.rmtree(soak.folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--lane"]:
        run_lane(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
