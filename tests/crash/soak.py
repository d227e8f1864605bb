"""`make soak`: every campaign at full length, side by side, within an hour; figures in a table and as JSON.

A campaign is a function `campaign(rounds, seed, folder, progress)` that gives figures by name, says them as
it goes, and raises if something is wrong. Each lane of it is a process of its own. `SOAK=quick` runs little
of everything. SIGTERM, SIGINT or SIGHUP let each lane judge what it has, and print the table of that; a
second one ends them. In the end nothing is mounted or left in any folder, but what shows a failure: its
lane's folder, which is named.
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

from tests.crash.progress import FINDINGS, Figures, Progress, add

MINUTES_MAX = 60
_SAY_SECONDS = 15.0
_WRITE_SECONDS = 60.0
_JUDGE_SECONDS = 90.0  # for what was done, after a signal
_CLEAN_SECONDS = 15.0  # for mounts and folders
_ROOT = Path(__file__).parents[2]

CampaignFunction = Callable[[int, int, Path, Progress], Figures]


class Campaign(NamedTuple):
    """What is run how often: in all, in a quick soak, in how many lanes side by side, and for how long."""

    function: str
    unit: str
    rounds: int
    quick: int
    lanes: int = 1
    # Of 60: no round begins after it. What is under way then must be judged within the hour.
    minutes: float = 50
    nice: int = 0  # who needs long and can't do more than one thing at a time goes first


CAMPAIGNS = {
    "kills": Campaign("tests.crash.kills:campaign", "kills", 1000, 10, lanes=2, nice=4),
    "cuts": Campaign("tests.crash.cuts:campaign", "power cuts", 200, 4, nice=4),
    "simulation": Campaign("tests.simulation.soak:campaign", "simulated histories", 40, 1, nice=15),
    "fuzz": Campaign("tests.hostile.soak:campaign", "fuzzed frames", 200_000, 4000),
    "takeover": Campaign("tests.crash.takeover:campaign", "contested jobs", 10_000, 30, lanes=2, nice=4),
    "damage": Campaign("tests.offline.damage:campaign", "damaged places", 5000, 60, nice=4),
    "planted": Campaign("tests.mutation.soak:campaign", "planted bugs", 400, 6, minutes=44),
}


class Lane:
    """One process of a campaign, and what it has said."""

    def __init__(self, name: str, rounds: int, seed: int, folder: Path, seconds: float) -> None:
        self.name = name
        self.rounds = rounds
        self.done = 0
        self.figures: Figures = {}
        self.told_to_stop = False
        self.seed = seed
        self.folder = folder
        folder.mkdir(parents=True)
        self.log = folder / "output.txt"
        command = [sys.executable, "-m", "tests.crash.soak", "--lane"]
        command += [CAMPAIGNS[name].function, str(rounds), str(seed), str(folder), str(seconds)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, cwd=_ROOT, text=True, start_new_session=True
            )
        os.setpriority(os.PRIO_PROCESS, self.process.pid, CAMPAIGNS[name].nice)
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

    @property
    def failed(self) -> bool:
        """Whether it found something, or came to an end that neither it nor a signal wanted."""
        if any(self.figures.get(name) for name in FINDINGS):
            return True
        if not self.ended or self.process.returncode == 0:
            return False
        return not self.cut_short

    @property
    def cut_short(self) -> bool:
        """Whether a signal ended it before it had judged its last rounds."""
        return self.told_to_stop and self.ended and self.process.returncode < 0

    def stop(self) -> None:
        """Let it judge what it has, and end."""
        if not self.ended:
            self.told_to_stop = True
            self.process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Let it only clean up."""
        if not self.ended:
            self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """End it, and all that it has started and left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()


def run_lane(function: str, rounds: int, seed: int, folder: Path, seconds: float) -> None:
    """The process of a lane: says each round, and the figures as they grow."""
    module, _, name = function.partition(":")
    campaign: CampaignFunction = getattr(importlib.import_module(module), name)

    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a campaign prints is for its log

    def say(**what: object) -> None:
        line.write(json.dumps(what) + "\n")
        line.flush()

    progress = Progress(say, seconds)
    signal.signal(signal.SIGTERM, lambda *_: progress.stop())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    say(figures=campaign(rounds, seed, folder, progress))


class Soak:
    """All campaigns that were asked for, until they have ended or the time is up."""

    def __init__(
        self,
        names: list[str],
        *,
        quick: bool,
        seed: int,
        minutes: float,
        figures: Path,
        parent: Path = Path("/var/tmp"),
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="perstack-soak-", dir=parent))
        self.seed = seed
        self.signals: list[int] = []
        self._figures = figures
        self._started = time.monotonic()
        self._deadline = self._started + minutes * 60
        self._lanes: list[Lane] = []
        for name in names:
            campaign = CAMPAIGNS[name]
            rounds = campaign.quick if quick else campaign.rounds
            lanes = min(campaign.lanes, rounds)
            seconds = campaign.minutes * minutes / MINUTES_MAX * 60
            for n in range(lanes):
                share = rounds // lanes + (n < rounds % lanes)
                self._lanes.append(Lane(name, share, seed + n, self.folder / f"{name}-{n}", seconds))

    def run(self) -> bool:
        """Wait for the lanes, say and write how far they are; whether all went well."""
        try:
            self._wait(self._deadline, lambda: bool(self.signals))
            if self.signals:
                self._stop()
        finally:
            self._end()
            self.write()
        for lane in self._lanes:
            if lane.cut_short:
                sys.stdout.write(f"\n{lane.name} was ended before it had judged its last rounds\n")
            if lane.failed:
                sys.stdout.write(
                    f"\nFAILED: {lane.name}, seed {lane.seed}, after {lane.done} of {lane.rounds} rounds"
                    f" (status {lane.process.returncode}). All is kept in {lane.folder}\n"
                )
                sys.stdout.write("".join(lane.log.read_text().splitlines(keepends=True)[-30:]))
            else:
                shutil.rmtree(lane.folder, ignore_errors=True)
        if any(lane.failed for lane in self._lanes):
            return False
        shutil.rmtree(self.folder)
        return True

    def _stop(self) -> None:
        """A signal came: what is under way is judged, if nobody sends another."""
        sys.stdout.write("stopping: what was done is judged\n")
        for lane in self._lanes:
            lane.stop()
        self._give(_JUDGE_SECONDS)

    def _end(self) -> None:
        """End what still runs: it may clean up before, if nobody sends a signal."""
        for lane in self._lanes:
            lane.interrupt()
        self._give(_CLEAN_SECONDS)
        for lane in self._lanes:
            lane.end()

    def _give(self, seconds: float) -> None:
        told = len(self.signals)
        self._wait(time.monotonic() + seconds, lambda: len(self.signals) > told)

    def figures(self) -> dict[str, Figures]:
        """What is known now, by campaign; "failed" counts lanes that found something or came to no end."""
        figures: dict[str, Figures] = {}
        for lane in self._lanes:
            of_campaign = figures.setdefault(lane.name, {"rounds": 0, "asked": 0, "failed": 0})
            of_campaign["rounds"] += lane.done
            of_campaign["asked"] += lane.rounds
            of_campaign["failed"] += lane.failed
            add(of_campaign, lane.figures)
        return figures

    def write(self) -> None:
        """The figures as JSON, whole at any moment."""
        seconds = round(self.elapsed(), 1)
        ended = all(lane.ended for lane in self._lanes)
        known = {"seed": self.seed, "seconds": seconds, "ended": ended, "campaigns": self.figures()}
        new = self._figures.with_suffix(".new")
        new.write_text(json.dumps(known, indent=2) + "\n")
        new.replace(self._figures)

    def _wait(self, deadline: float, stop: Callable[[], bool]) -> None:
        said = written = -_WRITE_SECONDS
        running = len(self._lanes)
        while running and time.monotonic() < deadline and not stop():
            before, running = running, sum(not lane.ended for lane in self._lanes)
            if self.elapsed() - said > _SAY_SECONDS:
                said = self.elapsed()
                sys.stdout.write(f"{said:6.0f} s   {self._progress()}\n")
                sys.stdout.flush()
            if running != before or self.elapsed() - written > _WRITE_SECONDS:
                written = self.elapsed()
                self.write()
            time.sleep(0.2)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def _progress(self) -> str:
        return "   ".join(
            f"{name} {figures['rounds']:,} of {figures['asked']:,}" + " FAILED" * bool(figures["failed"])
            for name, figures in self.figures().items()
        )


def table(figures: dict[str, Figures]) -> str:
    """The figures for people, and what they come to."""
    lines = []
    for name, of_campaign in figures.items():
        rounds = f"{of_campaign['rounds']:,} of {of_campaign['asked']:,} {CAMPAIGNS[name].unit}"
        rest = [f"{key} {value:,}" for key, value in of_campaign.items() if key not in {"rounds", "asked"}]
        lines.append(f"  {name:<10} {rounds:<34} {', '.join(rest)}")
    shown = ("acknowledged", "lost", "doubled", "reordered", "torn", "invented", "failed")
    total = {key: sum(of_campaign.get(key, 0) for of_campaign in figures.values()) for key in shown}
    lines.append(f"  {'all':<10} " + ", ".join(f"{key} {value:,}" for key, value in total.items()))
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
    names = told.campaigns or list(CAMPAIGNS)
    soak = Soak(names, quick=told.quick, seed=told.seed, minutes=told.minutes, figures=told.figures)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: soak.signals.append(number))
    good = soak.run()
    sys.stdout.write(f"\n{table(soak.figures())}\n\n{soak.elapsed():.0f} s, figures in {told.figures}\n")
    sys.exit(1 if not good else 128 + soak.signals[0] if soak.signals else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--lane"]:
        run_lane(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), float(sys.argv[6]))
    else:
        main()
