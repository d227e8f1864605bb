"""The soak itself: what a lane finds, and what it had done when stopped, reaches table and exit status."""

import json
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.crash import soak
from tests.crash.progress import Figures, Progress
from tests.crash.soak import CAMPAIGNS, Campaign, Soak, table
from tests.helpers.daemon import eventually


def losing(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """A campaign that finds something."""
    progress(2)
    progress.tell({"acknowledged": 7, "lost": 1, "doubled": 2})
    raise AssertionError("position 5 was acknowledged and is lost")


def lasting(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """A campaign that goes on until its time is up, and then judges."""
    done = 0
    while not progress.time_is_up:
        sys.stdout.write("what a campaign prints is not taken for a figure\n")
        progress(done := done + 1)
        time.sleep(0.01)
    return {"acknowledged": done, "lost": 0}


def _soak(tmp_path: Path, minutes: float, monkeypatch: pytest.MonkeyPatch, *names: str) -> Soak:
    campaigns = {
        name: Campaign(f"tests.crash.test_soak:{name}", "rounds", 10**6, 5, minutes=5) for name in names
    }
    monkeypatch.setattr(soak, "CAMPAIGNS", campaigns)
    figures = tmp_path / "soak.json"
    return Soak(list(names), quick=False, seed=1, minutes=minutes, figures=figures, parent=tmp_path)


def lingering(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """A campaign that does not look whether its time is up, and has something to clean up."""
    left = folder.parents[1] / "left"
    left.touch()
    try:
        time.sleep(600)
    finally:
        left.unlink()
    return {}


def test_every_campaign_is_there() -> None:
    """As many of each as was promised."""
    rounds = {name: campaign.rounds for name, campaign in CAMPAIGNS.items()}
    assert rounds.keys() == {"kills", "cuts", "simulation", "fuzz", "damage", "planted", "takeover"}
    assert (rounds["kills"], rounds["cuts"], rounds["fuzz"]) == (1000, 200, 200_000)


def test_what_a_failed_lane_found_reaches_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last figures count, and so does that it failed; the lane beside it ends when its time is up."""
    running = _soak(tmp_path, 2, monkeypatch, "losing", "lasting")
    assert not running.run()
    figures = running.figures()
    assert figures["losing"] == {
        "rounds": 2, "asked": 10**6, "failed": 1, "acknowledged": 7, "lost": 1, "doubled": 2,
    }  # fmt: skip
    assert figures["lasting"]["failed"] == 0
    assert figures["lasting"]["acknowledged"] == figures["lasting"]["rounds"] > 0
    known = json.loads((tmp_path / "soak.json").read_text())
    assert (known["ended"], known["campaigns"]) == (True, figures)
    assert [lane.name for lane in running.folder.iterdir()] == ["losing-0"]  # what the other left is gone
    said = table(figures)
    assert f"acknowledged {7 + figures['lasting']['rounds']:,}, lost 1, doubled 2" in said


def test_a_signal_lets_each_lane_judge_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure, and its figures are there."""
    running = _soak(tmp_path, 10, monkeypatch, "lasting")

    def interrupt() -> None:
        eventually(lambda: running.figures()["lasting"]["rounds"] > 3, "it goes on")
        running.signals.append(signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert running.run()
    thread.join()
    of_campaign = running.figures()["lasting"]
    assert of_campaign["acknowledged"] == of_campaign["rounds"] > 3
    assert not running.folder.exists()


def test_a_lane_that_is_ended_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over it has failed; what it had outside of its folder is gone all the same."""
    running = _soak(tmp_path, 0.1, monkeypatch, "lingering")
    eventually((tmp_path / "left").exists, "it runs")
    assert not running.run()
    assert not (tmp_path / "left").exists()
    assert [lane.name for lane in running.folder.iterdir()] == ["lingering-0"]
