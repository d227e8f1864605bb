"""A sample of the damages that `make damage` tries by the thousand."""

import random
from collections import Counter
from pathlib import Path

import pytest
import structlog

from tests.helpers.daemon import open_files
from tests.offline.damage import damages
from tests.offline.damage_base import Made, make
from tests.offline.damage_places import HOWS, Place
from tests.offline.damage_trial import run

PLACES = 36


@pytest.fixture(autouse=True)
def _quiet() -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def test_damage_anywhere_is_found_and_named_and_nothing_else_comes_of_it(tmp_path: Path) -> None:
    """Places of all kinds in two bases, always the same; `make damage` tries others."""
    seed = 1
    before = len(open_files())
    outcomes, wrong = damages(PLACES, seed, tmp_path, lambda _done: None)
    assert not wrong, "\n".join(wrong)
    assert len(open_files()) == before, "the campaign tries thousands in one process"
    seen = Counter[str]()
    for outcome, count in outcomes.items():
        seen[outcome.partition(": ")[2]] += count
    assert seen["repaired whole"] > PLACES // 8
    assert seen["named by check"] > PLACES // 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("clean") / "base", clean=True)


@pytest.mark.parametrize("how", HOWS)
def test_an_index_whose_bytes_changed_gives_no_other_answers(made: Made, how: str, tmp_path: Path) -> None:
    """Without checksums of its pages half of these changed an answer, and nobody noticed."""
    data = (made.path / ".stored/index.sqlite").read_bytes()
    used = [offset for offset, byte in enumerate(data) if byte]
    pick = random.Random(how)
    for n, offset in enumerate(pick.sample(used, 8)):
        assert run(made, Place(".stored/index.sqlite", offset, how), tmp_path, n) == "no effect"


@pytest.mark.parametrize("behind", [20, 65, 67, 71])
def test_a_segment_that_is_cut_in_the_head_of_an_entry_is_repaired(
    made: Made, behind: int, tmp_path: Path
) -> None:
    """Found by the campaign: half a table ended the repair with a traceback."""
    name = ".stored/journal/0000000002.segment"
    entry = (made.path / name).read_bytes().index(b"PSE1", 1000)
    assert run(made, Place(name, entry + behind, "cut"), tmp_path, 1).startswith("repaired")


@pytest.mark.parametrize(
    ("how", "comes"), [("flip", "no effect"), ("noise", "repaired whole"), ("cut", "repaired")]
)
def test_what_begins_between_two_entries_is_named_from_the_entry_on(
    made: Made, how: str, comes: str, tmp_path: Path
) -> None:
    """Found by the campaign: the bytes up to the next multiple of eight belong to no entry."""
    name = "0000000002.segment"
    padding = sorted(made.padding[name])
    assert len(padding) > 8
    for n, offset in enumerate(padding[:8]):
        assert run(made, Place(f".stored/journal/{name}", offset, how), tmp_path, n).startswith(comes)
