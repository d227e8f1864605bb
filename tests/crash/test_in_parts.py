"""A long campaign goes on where its last run ended."""

import shutil
from pathlib import Path

import pytest

from tests.crash.in_parts import NOT_ALL, Plan, plan_from, play
from tests.crash.progress import Figures


class Played:
    """Parts that were played; one may fail."""

    def __init__(self, *, fails_at: int = 0) -> None:
        self.parts: list[tuple[int, int]] = []
        self._fails_at = fails_at

    def __call__(self, count: int, seed: int, folder: Path) -> Figures:
        assert not list(folder.iterdir())
        assert seed != self._fails_at, "a promise is broken"
        self.parts.append((count, seed))
        return {"rounds": count, "slowestMax": seed}


def plan(results: Path | None, minutes: float = 1) -> Plan:
    return Plan("some", 25, 10, 3, minutes, results)


def test_what_is_done_is_not_played_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that was found wanting, or whose line was cut off, is."""
    results = tmp_path / "results"
    failing, second, third = Played(fails_at=4), Played(), Played()
    with pytest.raises(AssertionError, match="broken"):
        play(plan(results), failing)
    assert failing.parts == [(10, 3)]
    assert play(plan(results), second) == 0
    assert second.parts == [(10, 4), (5, 5)]
    results.write_bytes(results.read_bytes()[:-4])
    capsys.readouterr()
    assert play(plan(results), third) == 0
    assert third.parts == [(5, 5)]
    assert capsys.readouterr().out.splitlines()[-1] == "some, 25 of 25 rounds: rounds 25, slowestMax 5"


def test_a_part_that_fails_keeps_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Its logs and files say what went wrong; those of the others go."""
    folders: list[Path] = []

    def part(count: int, seed: int, folder: Path) -> Figures:
        folders.append(folder)
        (folder / "log").write_text(str(seed))
        assert seed != 4, "a promise is broken"
        return {"rounds": count}

    with pytest.raises(AssertionError):
        play(plan(None), part)
    assert str(folders[1]) in capsys.readouterr().err
    assert (folders[1] / "log").read_text() == "4"
    assert not folders[0].exists()
    shutil.rmtree(folders[1])


def test_the_time_bounds_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No part begins after it; the status says that not all was done."""
    results, played = tmp_path / "results", Played()
    assert play(plan(results, minutes=0), played) == NOT_ALL
    assert not played.parts
    assert "0 of 25 rounds" in capsys.readouterr().out
    assert play(plan(results), played) == play(plan(results, minutes=0), played) == 0
    assert len(played.parts) == 3


def test_the_command_line_makes_a_plan(tmp_path: Path) -> None:
    found = plan_from(["--rounds", "7", "--results", str(tmp_path / "r")], "some", 1000, 100)
    assert found == Plan("some", 7, 7, 1, 50, tmp_path / "r")
