"""The benchmark itself works: rounds are counted, audited, judged and written down."""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bench import guard, main
from tests.bench.contenders import CONTENDERS
from tests.bench.figures import estimate, ratios
from tests.bench.load import Load, Round
from tests.bench.results import Results
from tests.bench.targets import judged


def results_of(ours: float, theirs: float) -> Results:
    """Three rounds of one work with these rates."""
    results = Results()
    for name, rate in (("perstack", ours), ("redis", theirs)):
        for _ in range(3):
            results.add("32 x 1", Load(32, 1, 1.0), name, Round(10, rate, rate, [1.0], 10))
    return results


def test_a_short_run_writes_rounds_that_passed_their_audit(tmp_path: Path) -> None:
    """Two contenders of 0.3 s; the JSON has their rounds, and no acknowledged event is missing."""
    command = [sys.executable, "-m", "tests.bench.main", "--quick", "--only", "b", "--rounds", "1"]
    options = ["--seconds", "0.3", "--contenders", "perstack,sqlite", "--out", str(tmp_path / "out")]
    folder = ["--folder", tempfile.gettempdir()]  # the path of a socket is short
    subprocess.run([*command, *options, *folder], check=True, cwd=Path(__file__).parents[2], timeout=100)
    written = json.loads((tmp_path / "out/bench.json").read_bytes())
    rounds = {r["contender"]: r["rounds"][0] for r in written["rounds"]}
    assert rounds.keys() == {"perstack", "sqlite"}
    assert all(r["count"] == r["audited"] > 0 and r["latenciesUs"] for r in rounds.values())
    assert (tmp_path / "out/bench.svg").read_text().count("<rect") > 4
    assert [t["text"] for t in written["targets"]] == ["8 x 64: rate against sqlite"]


class Broken:
    """A contender that fails in its second round."""

    rounds = 0

    def round(self, folder: Path, load: Load) -> Round:
        """Counts."""
        self.rounds += 1
        if self.rounds > 1:
            raise RuntimeError("out of room")
        return Round(10, 5.0, 5.0, [1.0], 10)


class Sound(Broken):
    """One that doesn't fail."""

    def round(self, folder: Path, load: Load) -> Round:
        """Counts."""
        self.rounds += 1
        return Round(10, 10.0 * self.rounds, 10.0, [1.0], 10)


def test_a_contender_that_fails_leaves_the_others_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report names it, and it takes part no longer; its earlier results stay paired with their rounds."""
    broken, sound = Broken(), Sound()
    monkeypatch.setattr(main, "CONTENDERS", {"redis": broken, "perstack": sound})
    results = Results()
    options = argparse.Namespace(
        seconds=0.1, quick=True, works="32 x 1", rounds=3, small_rounds=3, sustained=1, deadline=math.inf
    )
    renewed: list[int] = []
    main.measure_works(
        tmp_path, lambda: renewed.append(sound.rounds), results, options, ["redis", "perstack"], "a"
    )
    assert renewed == [0, 1, 2]
    assert results.left_out == ["32 x 1: redis failed in round 2: RuntimeError('out of room')"]
    assert (broken.rounds, sound.rounds) == (2, 3)
    (target,) = judged(results)
    assert target.found.median == 10.0 / 5.0


def test_an_audit_that_disagrees_is_reported() -> None:
    """The report names events that are acknowledged and not stored."""
    results = Results()
    results.add("w", Load(1, 1, 1.0), "redis", Round(10, 1.0, 1.0, [], 9))
    assert results.left_out == ["w, redis: 10 acknowledged, 9 stored"]


@pytest.mark.parametrize(("ours", "theirs", "met"), [(200.0, 100.0, True), (99.0, 100.0, False)])
def test_a_target_is_judged_by_the_ratio_of_paired_rounds(ours: float, theirs: float, met: bool) -> None:
    """A ratio above the target meets it, one below misses it."""
    (target,) = judged(results_of(ours, theirs))
    assert target.met is met
    assert target.found.median == ours / theirs


def test_an_interval_holds_its_median_and_pairs_stay_pairs() -> None:
    """If each round doubles, the ratio is exactly 2, however much the rounds differ."""
    assert estimate(ratios([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])) == (2.0, 2.0, 2.0)
    low = estimate([1.0, 2.0, 3.0, 4.0, 100.0])
    assert low.low < low.median == 3.0 < low.high


def test_every_contender_says_what_it_syncs() -> None:
    """A rate is of no use without its promise."""
    assert all(contender.sync_mode() for contender in CONTENDERS.values())


@pytest.mark.parametrize(
    ("rates", "status"), [([100.0, 110, 90], 0), ([180, 190, 200], 0), ([40, 45, 50], 1)]
)
def test_the_guard_fails_where_a_ratio_is_worse_beyond_the_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: list[float], status: int
) -> None:
    """A better one passes, and so does one within the noise."""
    for folder, ours in ((tmp_path / "then", [95.0, 105, 110]), (tmp_path / "now", rates)):
        folder.mkdir()
        results = Results()
        for rate in ours:
            for name, each in (("perstack", rate), ("redis", 100.0)):
                results.add("32 x 1", Load(32, 1, 1.0), name, Round(10, each, each, [1.0], 10))
        results.write(folder / "bench.json", [])
    monkeypatch.setattr(guard, "RESULTS", tmp_path / "then/bench.json")
    monkeypatch.setattr(sys, "argv", ["guard", "--no-run", "--out", str(tmp_path / "now")])
    assert guard.main() == status


def test_a_guard_without_anything_to_compare_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Results().write(tmp_path / "bench.json", [])
    monkeypatch.setattr(sys, "argv", ["guard", "--no-run", "--out", str(tmp_path)])
    assert guard.main() == guard.NOTHING
