"""The judge of the campaign finds each kind of fault, and nothing where there is none."""

from pathlib import Path

import pytest

from .answers import Answers, answers_in
from .judge import Stored, Verdict, compare

ACKED = {1: 1, 2: 3, 4: 4}  # of w0; number 3 was refused, and position 2 is another's


def answers() -> list[Answers]:
    """Of one writer."""
    found = Answers("w0")
    found.acked.update(ACKED)
    found.refused[3] = "BAD_VALUE"
    return [found]


def log(*ids: str) -> list[Stored]:
    """Records with these ids, from position 1 on."""
    return [Stored(position, id, f"record {position} {id}") for position, id in enumerate(ids, 1)]


RIGHT = log("w0-1", "other", "w0-2", "w0-4")


def verdict_on(*logs: list[Stored], is_whole: bool = True) -> dict[str, int]:
    """What is counted, but for what is 0."""
    verdict = compare(answers(), logs, is_whole=is_whole)
    counts = {name: count for name, count in vars(verdict).items() if isinstance(count, int) and count}
    assert verdict.is_clean is (counts.keys() <= {"records"})
    assert bool(verdict.examples) is not verdict.is_clean
    return counts


def test_nothing_is_wrong() -> None:
    assert verdict_on(RIGHT, RIGHT, RIGHT) == {"records": 4}


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (("w0-1", "other", "w0-2"), {"lost": 1}),
        (("w0-1", "other", "x", "w0-4"), {"lost": 1}),
        (("w0-1", "other", "w0-2", "w0-4", "w0-4"), {"doubled": 1, "lost": 1}),
        (("w0-1", "other", "w0-4", "w0-2"), {"reordered": 1, "lost": 2}),
        (("w0-1", "other", "w0-2", "w0-4", "w0-5"), {"unasked": 1}),
        (("w0-1", "other", "w0-2", "w0-4", "w0-3"), {"unasked": 1, "reordered": 1}),
    ],
)
def test_what_is_wrong_with_the_stores_is_counted(ids: tuple[str, ...], found: dict[str, int]) -> None:
    """Also where all daemons hold the same."""
    assert verdict_on(log(*ids), log(*ids)) == {"records": len(ids)} | found


def test_daemons_that_differ_are_found() -> None:
    other = [*RIGHT[:1], Stored(2, "other", "record 2, another time"), *RIGHT[2:]]
    assert verdict_on(RIGHT, other) == {"records": 4, "unequal": 1}
    assert verdict_on(RIGHT, RIGHT[:3]) == {"records": 4, "unequal": 1}
    holed = [*RIGHT[:2], *RIGHT[3:]]
    assert verdict_on(holed, holed)["unequal"] == 1


def test_a_campaign_that_was_cut_off_is_judged_by_its_files(tmp_path: Path) -> None:
    """Its daemons may lack the end; a store may have had no answer. What was acknowledged is at one."""
    (tmp_path / "w0.answers").write_text("1 1\n3 BAD_VALUE\n2 3\n4 4\n")
    (found,) = answers_in(tmp_path)
    assert (found.acked, found.refused, found.newest) == (ACKED, {3: "BAD_VALUE"}, 4)
    assert verdict_on(RIGHT, RIGHT[:2], is_whole=False) == {"records": 4}
    assert verdict_on(log("w0-1", "other", "w0-2", "w0-4", "w0-5"), is_whole=False) == {"records": 5}
    assert verdict_on(RIGHT[:3], RIGHT[:2], is_whole=False) == {"records": 3, "lost": 1}


def test_only_some_examples_are_kept() -> None:
    verdict = Verdict()
    for i in range(100):
        verdict.note("lost", f"w0-{i}")
    assert verdict.lost == 100
    assert len(verdict.examples) == 10
