"""The benchmark of the replicated journal and of the mirror works: it measures, judges and writes down."""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bench.beyond import __main__ as beyond
from tests.bench.beyond.outages import longest_wait
from tests.bench.beyond.report import TARGETS, Figures
from tests.bench.beyond.world import Plan


def row_of(figures: Figures, name: str) -> dict[str, object]:
    """The row of a figure."""
    (found,) = (row for row in figures.rows() if row["name"] == name)
    return found


@pytest.mark.parametrize(
    ("name", "values", "met"),
    [
        ("replicated, events/s", [14_000.0, 15_000, 30_000], True),
        ("replicated, events/s", [14_000.0, 14_999, 30_000], False),
        ("replicated, p50 ms", [1.0, 5, 9], True),
        ("leader killed, s", [4.0, 4, 10], True),
        ("leader killed, s", [4.0, 4, 10.1], False),
    ],
)
def test_a_target_is_judged_by_the_median_or_by_the_worst(name: str, values: list[float], met: bool) -> None:
    """A speed by its median; a promise about each fault by the worst of them."""
    figures = Figures()
    (target,) = (target for target in TARGETS if target.name == name)
    for value in values:
        figures.add(target.part, name, value)
    assert row_of(figures, name)["met"] is met
    assert row_of(figures, name)["worst"] == (max if target.sign == "<=" else min)(values)


def test_a_target_that_was_not_measured_is_not_met(tmp_path: Path) -> None:
    """The table has a row for it, and JSON no number."""
    figures = Figures()
    assert [row["met"] for row in figures.rows()] == [False] * len(TARGETS)
    figures.write(tmp_path)
    assert (tmp_path / "beyond.md").read_text().count("**missed**") == len(TARGETS)
    assert json.loads((tmp_path / "beyond.json").read_text())["figures"][0]["median"] is None


def test_the_longest_wait_is_one_that_a_fault_can_have_made() -> None:
    """What was over before the fault does not count; what began before it does."""
    acks = [0.0, 5.0, 5.1, 6.0, 6.1]
    assert longest_wait(acks, 5.05) == pytest.approx(0.9)
    assert longest_wait(acks, 3.0) == 5.0
    assert longest_wait(acks, 7.0) == 0.0


def test_a_part_that_fails_leaves_the_others_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status says so, and the report names it."""

    def broken(root: Path, figures: Figures, plan: Plan) -> None:
        raise RuntimeError("out of room")

    def sound(root: Path, figures: Figures, plan: Plan) -> None:
        figures.add("mirror", "lag at 2,000 events/s, s", 1.5)

    monkeypatch.setattr(beyond, "PARTS", {"broken": (broken, 0.5), "sound": (sound, 0.5)})
    options = ["--only", "broken,sound", "--folder", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["beyond", *options])
    assert beyond.main() == 1
    written = json.loads((tmp_path / "out/beyond.json").read_text())
    assert written["leftOut"] == ["broken failed: RuntimeError('out of room')"]
    assert next(row["values"] for row in written["figures"] if row["part"] == "mirror") == [1.5]


def test_a_short_run_measures_both_modes_and_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real servers and daemons; each figure of these parts has a value, and nothing is wrong."""
    monkeypatch.delenv("WEED", raising=False)
    short = ["--rounds", "1", "--seconds", "0.2", "--only", "speed,mirror", "--out", str(tmp_path)]
    folder = ["--folder", tempfile.gettempdir()]  # the path of a socket is short
    monkeypatch.setattr(sys, "argv", ["beyond", *short, *folder])
    assert beyond.main() == 0
    written = json.loads((tmp_path / "beyond.json").read_text())
    measured = {row["part"] for row in written["figures"] if row["values"]}
    assert measured == {"8 x 64", "1 x 1", "reads", "mirror"}
    assert all(row["values"] for row in written["figures"] if row["part"] in measured)
    assert written["leftOut"] == []
